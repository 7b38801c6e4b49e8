"""Adapters: one package per hypervisor, strangers to each other, behind whimbrel.ports."""
