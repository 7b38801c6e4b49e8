"""What surveying yields beyond the survey itself: what it cost, and what it could not tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from whimbrel.model.memory import Survey


class Depth(StrEnum):
    """How much time a survey may take; docs/survey.md has the figures."""

    QUICK = "quick"
    DEFAULT = "default"
    DEEP = "deep"


@dataclass(frozen=True)
class NumaNode:
    """One NUMA node.

    Attributes:
        cores: Numbers of its cores that are online.
        free_memory: Bytes.
    """

    cores: tuple[int, ...]
    free_memory: int


@dataclass(frozen=True)
class HostFacts:
    """What a host has, as far as a move cares.

    Attributes:
        cores: Number of online cores.
        available_memory: Bytes that can be had without swapping (MemAvailable).
        memory: Bytes in all (MemTotal); 0: not known.
        huge_page: Bytes of a huge page; 0: none.
        free_huge_pages: Reserved huge pages that nobody uses.
        nodes: The NUMA nodes.
        boot_id: What its kernel was called at boot, by which two hosts that are one machine are
            known; empty: not told.
    """

    cores: int = 1
    available_memory: int = 0
    memory: int = 0
    huge_page: int = 0
    free_huge_pages: int = 0
    nodes: tuple[NumaNode, ...] = ()
    boot_id: str = ""

    def same_machine(self, other: "HostFacts") -> bool:
        """Tell whether two hosts are one machine and share its cores (containers, a lab)."""
        return bool(self.boot_id) and self.boot_id == other.boot_id


@dataclass(frozen=True)
class LinkReading:
    """What a probe found of the migration network.

    Attributes:
        goodput: Bytes per second of payload by number of streams.
        latency: Seconds of round trip.
        error: Relative standard error of the goodput.
        nominal: Bytes per second that the interface reports; None: it says nothing.
        other_traffic: Bytes per second that others sent and received meanwhile, the busier
            direction; the goodput is what they leave.
        in_flight: Bytes written and not yet received while the link is busy, by number of
            streams.
        rdma: Bytes per second that the RDMA devices at both ends say they carry; None: there are
            none, or they are emulated, and share what the link carries.
        multipath: What was found of all NICs together, over MPTCP; None: there is one NIC.
        notes: What a person should know of it; whole sentences.
    """

    goodput: Mapping[int, float]
    latency: float
    error: float = 0.03
    nominal: float | None = None
    other_traffic: float = 0.0
    in_flight: Mapping[int, float] = field(default_factory=dict)
    multipath: "LinkReading | None" = None
    rdma: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Surveyed:
    """A survey with what it cost and what it cannot know.

    Attributes:
        survey: What was measured.
        depth: How deep it looked.
        duration: Seconds it took.
        cpu_seconds: CPU seconds the surveying process and its probes used.
        source_facts: What the source has.
        destination_facts: What the destination has.
        link: The probe's reading; None where the link was not probed.
        sampled_pages: Pages that were watched for changes.
        looks: How often each of them was looked at; 0: the hypervisor counted.
        notes: What a person should know: what is unsteady, unknown or extrapolated.
        assumed: What was taken for granted because nothing could measure it; whole sentences.
    """

    survey: Survey
    depth: Depth
    duration: float
    cpu_seconds: float
    source_facts: HostFacts = HostFacts()
    destination_facts: HostFacts = HostFacts()
    link: LinkReading | None = None
    sampled_pages: int = 0
    looks: int = 0
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
