"""Soft-RoCE on nested hosts: see whimbrel.lab.nested.rdma."""

from whimbrel.lab.nested.rdma import MODULES, add_device, device, remove_device

__all__ = ["MODULES", "add_device", "device", "remove_device"]
