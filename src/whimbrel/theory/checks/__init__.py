"""The checks of a preflight: from plain facts to whether a move may begin, and what mends it.

Each rule is one function of the facts it needs; practice/preflight.py collects those. A rule
fails where the move would fail or could harm the guest, and warns of what somebody should know.

    hosts     two hosts, their memory, names, clocks and settings
    machine   the running VM against what the destination's hypervisor can build
    disks     images that both hosts must see, and copies that need room
    network   the migration address, and the bridges of the guest's NICs
    nics      several NICs at once
    rdma      RDMA devices, and memory that may be pinned
    certificates  those of the user, where they shall encrypt
"""
