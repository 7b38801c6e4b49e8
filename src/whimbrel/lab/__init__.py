"""The lab: two hosts on one machine, real guests, and every method measured."""
