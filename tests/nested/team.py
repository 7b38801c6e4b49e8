"""Two wires of a nested host joined to one team: bonding, balance-xor by layer 3 and 4.

Each wire carries no more than its rate, which is little: it must be the wires and not the emulated
cores that decide, or what two of them bring cannot be seen.
"""

from dataclasses import replace

from nested.hosts import NestedHost

NAME = "team0"
NICS = ("eth1", "eth2")


async def join(host: NestedHost, rate: str = "4mbit") -> None:
    """Join eth1 and eth2 under eth1's address; the host's links become that one."""
    await host.run("modprobe", "bonding", "max_bonds=0")
    await host.run("modprobe", "sch_tbf")
    kind = ["type", "bond", "mode", "balance-xor", "xmit_hash_policy", "layer3+4"]
    await host.run("ip", "link", "add", NAME, *kind, "miimon", "100")
    for nic in NICS:
        await host.run("ip", "link", "set", nic, "down")
        await host.run("ip", "address", "flush", "dev", nic)
        shape = ["tbf", "rate", rate, "burst", "64k", "latency", "200ms"]
        await host.run("tc", "qdisc", "replace", "dev", nic, "root", *shape)
        await host.run("ip", "link", "set", nic, "master", NAME)
    await host.run("ip", "address", "add", host.wires[0].address, "dev", NAME)
    await host.run("ip", "link", "set", NAME, "up")
    host.host = replace(host.host, links=host.host.links[:1])


async def sent(host: NestedHost) -> list[int]:
    """Return the bytes that each NIC of the team has sent."""
    files = [f"/sys/class/net/{nic}/statistics/tx_bytes" for nic in NICS]
    return [int(line) for line in (await host.run("cat", *files)).split()]
