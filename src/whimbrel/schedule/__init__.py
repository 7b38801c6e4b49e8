"""Moves at a time: jobs in the store, and what carries them out (docs/schedule.md)."""
