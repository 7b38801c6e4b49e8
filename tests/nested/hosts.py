"""Nested hosts as the tests use them: see whimbrel.lab.nested.hosts."""

from whimbrel.lab.nested.hosts import NestedHost, Wire, nested_hosts

__all__ = ["NestedHost", "Wire", "nested_hosts"]
