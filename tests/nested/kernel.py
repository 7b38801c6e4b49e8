"""What nested hosts boot: see whimbrel.lab.nested.kernel."""

from whimbrel.lab.nested.kernel import Boot, boot_files, full_kernel

__all__ = ["Boot", "boot_files", "full_kernel"]
