"""Answers of hosts as facts: from plain data to values (what is asked: sites/onsite/checks*)."""

from collections.abc import Mapping
from typing import Any

from whimbrel.model.preflight import (
    BootFile,
    BridgeFacts,
    HostedVm,
    HostFacts,
    MemoryFacts,
    MoveMark,
    PlaceFacts,
)

Answer = Mapping[str, Any]


def host_facts(name: str, answer: Answer, asked: float, took: float) -> HostFacts:
    """Return the facts of a host.

    Args:
        name: What people call it.
        answer: What it answered.
        asked: When it was asked, by whimbrel's clock (seconds since 1970).
        took: Seconds until the answer was there; its clock was read somewhere between.
    """
    return HostFacts(
        name=name,
        boot_id=answer["boot_id"],
        network=answer["network"],
        folder=answer["folder"],
        folder_private=answer["folder_private"],
        folder_writable=answer["folder_writable"],
        machine_id=answer["machine_id"],
        clock_ahead=answer["clock"] - (asked + took / 2),
        clock_error=took / 2,
        cpus=answer["cpus"],
        cpu_model=answer["cpu_model"],
        clock_flags=frozenset(answer["clock_flags"]),
        huge_pages={int(size): count for size, count in answer["huge_pages"].items()},
        uid=answer["uid"],
        memlock=answer["memlock"],
        kvm=answer["kvm"],
        rdma=tuple(answer["rdma"]),
        mptcp=answer["mptcp"],
        mptcp_subflows=answer["mptcp_subflows"],
        vms=tuple(HostedVm(each["name"], each["pid"]) for each in answer["vms"]),
        marks={name: _mark(mark) for name, mark in answer["marks"].items()},
        files={path: _boot_file(found) for path, found in answer["files"].items()},
    )


def _mark(mark: Answer) -> MoveMark:
    # Another version of whimbrel may have written it: what it lacks is left open.
    return MoveMark(*(str(mark.get(key, "")) for key in ("move", "source", "destination")))


def _boot_file(found: Answer | None) -> BootFile | None:
    return BootFile(found["size"], found["digest"]) if found else None


def memory_facts(answer: Answer) -> MemoryFacts:
    """Return the facts of a host's memory."""
    return MemoryFacts(answer["free"], answer["claimed"], tuple(answer["claimants"]))


def bridge_facts(answer: Answer | None) -> BridgeFacts | None:
    """Return the facts of an interface; None where there is none of that name."""
    if answer is None:
        return None
    return BridgeFacts(
        driver=answer["driver"],
        up=answer["up"],
        mtu=answer["mtu"],
        networks=frozenset(answer["networks"]),
        stations=frozenset(answer["stations"]),
    )


def place_facts(answer: Answer) -> PlaceFacts:
    """Return the facts of what lies at a path."""
    return PlaceFacts(
        path=answer["path"],
        kind=answer["kind"],
        real=answer.get("real", answer["path"]),
        folder_exists=answer.get("folder_exists", False),
        folder_writable=answer.get("folder_writable", False),
        free=answer.get("free", 0),
        volume=answer.get("volume", ""),
        file_system=answer.get("file_system", ""),
        shared=answer.get("shared", False),
        local_locks=answer.get("local_locks", False),
        size=answer.get("size", 0),
        writable=answer.get("writable", False),
        identities=frozenset(answer.get("identities", ())),
        regions=tuple(answer.get("regions", ())),
        holders=tuple((each["pid"], each["command"]) for each in answer.get("holders", ())),
        words=answer.get("words", ""),
    )


def address_facts(path: str, answer: Answer, host: HostFacts) -> PlaceFacts:
    """Return the facts of an image that QEMU reaches by itself.

    What "localhost" means is told by the network it was asked in.
    """
    return PlaceFacts(
        path=path,
        kind="address",
        size=answer.get("size", 0),
        words=answer.get("words", ""),
        identities=frozenset({f"network {host.boot_id} {host.network}"}),
    )
