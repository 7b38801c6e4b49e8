"""What the lab is asked to do, and what it saw: the facts that reports are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from whimbrel.model.method import CLASSIC, Method, Settings, Tuning
from whimbrel.model.migration import Decision, Pass, PhaseChange
from whimbrel.model.outcome import Ending
from whimbrel.model.plan import Goal
from whimbrel.model.prediction import Prediction
from whimbrel.model.survey import Depth
from whimbrel.model.units import GIB, MIB


class Pattern(StrEnum):
    """What redlined memory looks like (docs/redline.md)."""

    ZERO = "zero"
    CONSTANT = "constant"
    TEXT = "text"
    RANDOM = "random"
    MIXED = "mixed"


class Access(StrEnum):
    """In which order the hot region is rewritten."""

    UNIFORM = "uniform"
    SEQUENTIAL = "sequential"
    SKEWED = "skewed"


@dataclass(frozen=True)
class Load:
    """What redline does to the guest's memory.

    Attributes:
        fill: Bytes filled at the start.
        pattern: Their content.
        hot: Bytes of the fill that go on being rewritten.
        dirty_rate: Bytes per second of pages rewritten.
        access: The order of the rewriting.
        touch: Bytes written per page, 1 to 4096.
        freed: Bytes filled likewise, then given back to the guest's kernel before the move.
    """

    fill: int = 3584 * MIB
    pattern: Pattern = Pattern.TEXT
    hot: int = 0
    dirty_rate: float = 0.0
    access: Access = Access.UNIFORM
    touch: int = 4096
    freed: int = 0


@dataclass(frozen=True)
class LinkSpec:
    """The network between the two hosts.

    Attributes:
        rate: Bytes per second of each NIC, each way; None: unlimited.
        count: NICs at each host.
        rates: Of each NIC by itself, where they differ; then `rate` is that of the first.
        team: The bonding mode that makes the NICs one, "802.3ad"; empty: each is by itself.
    """

    rate: float | None = 125e6
    count: int = 1
    rates: tuple[float | None, ...] = ()
    team: str = ""

    @property
    def each(self) -> tuple[float | None, ...]:
        """The rate of each NIC."""
        return self.rates or (self.rate,) * self.count


@dataclass(frozen=True)
class GuestSpec:
    """The guest: bytes of memory, virtual CPUs, and what its memory does."""

    memory: int = 4 * GIB
    vcpus: int = 1
    redline: Load = Load()


class AcceleratorChoice(StrEnum):
    """Which accelerator runs the guests; auto takes KVM where a real boot under it works."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True)
class AutoSpec:
    """What `auto` shall aim at, and how far it may go; no other method heeds it.

    Attributes:
        goal: What shall be small.
        max_downtime: Seconds the guest may stand still, in nine of ten draws; None: 1 s, or
            twice the downtime limit where that is more.
        deadline: Seconds from the request until the guest has moved, preparation included;
            None: the scenario's timeout, which holds in any case.
        cpu_budget: Cores that a move may keep busy on each host; None: as many as there are.
        postcopy: Whether the guest may move before its memory. A failure of either host or of
            the link then loses it.
    """

    goal: Goal = Goal.FASTEST
    max_downtime: float | None = None
    deadline: float | None = None
    cpu_budget: float | None = None
    postcopy: bool = True


@dataclass(frozen=True)
class Scenario:
    """One comparison: a guest, a link, and the methods to move the one over the other.

    Attributes:
        name: For people.
        repeats: How often each method is run.
        methods: In the order of the table.
        timeout: Seconds a move may take before it is cancelled.
        link: The network.
        guest: The guest.
        settings: What applies to all methods at once.
        auto: What `auto` aims at.
        survey: How deep to survey before each move, to predict it; None predicts nothing.
        accelerator: KVM, TCG, or whichever works.
        kernel: A kernel image to use instead of the distribution's.
        modules: The `lib/modules/VERSION` folder that belongs to that image.
        nested: Whether its hosts are emulated machines instead of two namespaces of this one.
    """

    name: str = "classic"
    repeats: int = 1
    methods: tuple[Method, ...] = CLASSIC
    timeout: float = 120.0
    link: LinkSpec = LinkSpec()
    guest: GuestSpec = GuestSpec()
    settings: Settings = Settings()
    auto: AutoSpec = AutoSpec()
    survey: Depth | None = Depth.DEFAULT
    accelerator: AcceleratorChoice = AcceleratorChoice.AUTO
    kernel: Path | None = None
    modules: Path | None = None
    nested: bool = False


class Measure(StrEnum):
    """What a track counts, with its unit."""

    CPU_CORE = "cpu-core"  # busy share of one core, 0 to 1
    CPU_NUMA = "cpu-numa"  # busy share of one NUMA node, 0 to 1
    CPU_HOST = "cpu-host"  # cores kept busy by one host's QEMU
    SENT = "sent"  # bytes per second leaving one NIC
    RECEIVED = "received"  # bytes per second arriving at one NIC
    RESIDENT = "resident"  # bytes of memory held by one host's QEMU
    DIRTY_RATE = "dirty-rate"  # bytes per second, from the hypervisor
    REMAINING = "remaining"  # bytes, from the hypervisor
    BANDWIDTH = "bandwidth"  # bytes per second, from the hypervisor
    HEARTBEAT_GAP = "heartbeat-gap"  # seconds between two heartbeats of the guest


@dataclass(frozen=True)
class Track:
    """One counter over the time of a run: `values[i]` was seen at `times[i]` seconds."""

    measure: Measure
    label: str
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Observed:
    """A run's figures in seconds and bytes; None where unknown. Defined in docs/measures.md."""

    wall_time: float | None = None
    arrival_time: float | None = None
    preparation_time: float | None = None
    total_time: float | None = None
    setup_time: float | None = None
    downtime_reported: float | None = None
    downtime_expected: float | None = None
    downtime_observed: float | None = None
    longest_gap: float | None = None
    wire_bytes: int | None = None
    qemu_bytes: int | None = None
    passes: int | None = None
    source_cpu_seconds: float | None = None
    destination_cpu_seconds: float | None = None
    source_cpu_by_class: Mapping[str, float] = field(default_factory=dict)
    destination_cpu_by_class: Mapping[str, float] = field(default_factory=dict)
    throttle_max: float | None = None
    dirty_rate_before: float | None = None


@dataclass(frozen=True)
class GuestCheck:
    """The guest's own word on its memory after a move."""

    intact: bool
    pages_checked: int


@dataclass(frozen=True)
class Chosen:
    """What `auto` decided, and why.

    Attributes:
        method: What it took; the last it took, where it had to change course.
        reasons: Why that, and why not the others, one sentence each.
        ladder: The rungs of the plan's certificate in words (docs/certificate.md).
        advice: What would change the verdict, or allow something better; whole sentences.
    """

    method: Method
    reasons: tuple[str, ...]
    ladder: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One move of one method, or the reason why there was none.

    Attributes:
        method: The method's name.
        tuning: Everything it was set to; None where it could not run.
        repeat: 1 for the first.
        ending: How it ended.
        reason: Why, where it did not complete.
        observed: Its figures.
        guest: The verification; None where the guest could not be asked.
        predicted: What was said of it before it began, from a survey alone; None where none
            was made.
        pucker: The Pucker Factor of it (docs/pucker.md).
        chosen: What `auto` decided; None for every other method.
        source: Name of the host it left ("a" or "b").
        passes: The start of every pass.
        phases: Every phase entered, for marking charts.
        decisions: What was decided on the way.
        tracks: Counters over time, seconds since the request.
        preset: Whose settings and conduct they were (docs/peers.md), or which of a method's;
            empty: whimbrel's own.
        survey_time: Seconds that was looked before it; None where nobody looked.
    """

    method: Method
    tuning: Tuning | None
    repeat: int
    ending: Ending
    reason: str = ""
    observed: Observed = Observed()
    guest: GuestCheck | None = None
    predicted: Prediction | None = None
    pucker: float | None = None
    chosen: Chosen | None = None
    source: str = ""
    passes: tuple[Pass, ...] = ()
    phases: tuple[PhaseChange, ...] = ()
    decisions: tuple[Decision, ...] = ()
    tracks: tuple[Track, ...] = field(default=(), repr=False)
    preset: str = ""
    survey_time: float | None = None


@dataclass(frozen=True)
class ScenarioResult:
    """A scenario with its runs, in the order they ran."""

    scenario: Scenario
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class MachineFacts:
    """What the figures were measured on.

    Attributes:
        cpu: Model name.
        cores: Number of online cores.
        numa_nodes: Number of NUMA nodes.
        memory: Bytes.
        kernel: Host kernel release.
        hypervisor: "QEMU 10.0.2 (…)".
        accelerator: "tcg" or "kvm", and why.
        whimbrel: Own version.
        distribution: "Debian GNU/Linux 12 (bookworm)".
        started: Local date and time, ISO 8601.
        command: The command line that reproduces it.
    """

    cpu: str
    cores: int
    numa_nodes: int
    memory: int
    kernel: str
    hypervisor: str
    accelerator: str
    whimbrel: str
    distribution: str
    started: str
    command: str


@dataclass(frozen=True)
class LabResult:
    """Everything one call of the lab produced."""

    machine: MachineFacts
    scenarios: tuple[ScenarioResult, ...]
