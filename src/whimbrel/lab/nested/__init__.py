"""Two emulated hosts with Debian's full kernel: RDMA and bonding, which namespaces cannot have."""
