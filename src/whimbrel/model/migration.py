"""A move as it happens: phases, what is seen, what is decided.

    idle ──► setup ──► precopy ──► switchover ──► completed
               │          │  │          │
               │          │  └──────► postcopy ──► completed
               │          │             │ ▲
               ▼          ▼             ▼ │
            failed     cancelling    postcopy-paused ──► failed
                          │
                          ▼
                       cancelled

Before `postcopy` the guest runs at the source and a move can be undone; from there on it
runs at the destination, whose memory is not whole yet: the point of no return.
"""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """Where a guest runs."""

    SOURCE = "source"
    DESTINATION = "destination"


class Phase(StrEnum):
    """What a move is doing."""

    IDLE = "idle"
    SETUP = "setup"
    PRECOPY = "precopy"
    SWITCHOVER = "switchover"
    POSTCOPY = "postcopy"
    POSTCOPY_PAUSED = "postcopy-paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDS = frozenset({Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED})
"""Phases that nothing follows."""

TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.SETUP, Phase.FAILED}),
    Phase.SETUP: frozenset({Phase.PRECOPY, Phase.CANCELLING, Phase.FAILED}),
    Phase.PRECOPY: frozenset(
        {Phase.SWITCHOVER, Phase.POSTCOPY, Phase.CANCELLING, Phase.FAILED, Phase.COMPLETED}
    ),
    Phase.SWITCHOVER: frozenset(
        {Phase.COMPLETED, Phase.POSTCOPY, Phase.CANCELLING, Phase.FAILED, Phase.PRECOPY}
    ),
    Phase.POSTCOPY: frozenset({Phase.COMPLETED, Phase.POSTCOPY_PAUSED, Phase.FAILED}),
    Phase.POSTCOPY_PAUSED: frozenset({Phase.POSTCOPY, Phase.FAILED}),
    Phase.CANCELLING: frozenset({Phase.CANCELLED, Phase.COMPLETED, Phase.FAILED}),
    Phase.COMPLETED: frozenset(),
    Phase.CANCELLED: frozenset(),
    Phase.FAILED: frozenset(),
}
"""Every step a move can take; anything else is a protocol error."""


@dataclass(frozen=True)
class Observation:
    """What the hypervisor said when asked; for people and charts, not for decisions.

    Attributes:
        at: Seconds since the request to move.
        phase: What the move was doing.
        transferred: Bytes sent so far, as the hypervisor counts them.
        remaining: Raw bytes of dirty memory left; falls within a pass and jumps at the next.
        total: Bytes of guest memory.
        bandwidth: Bytes per second over the hypervisor's last window.
        dirty_rate: Bytes per second of newly dirtied pages, over the last pass.
        passes: Number of dirty bitmap synchronisations so far (QEMU: dirty-sync-count).
        throttle: Share of its time the guest was made to sleep, 0 to 1.
        normal_pages: Pages sent whole.
        zero_pages: Pages known to be zero, sent as a mark.
        expected_downtime: The hypervisor's own estimate in seconds, None where it gives none.
    """

    at: float
    phase: Phase
    transferred: int = 0
    remaining: int = 0
    total: int = 0
    bandwidth: float = 0.0
    dirty_rate: float = 0.0
    passes: int = 0
    throttle: float = 0.0
    normal_pages: int = 0
    zero_pages: int = 0
    expected_downtime: float | None = None


@dataclass(frozen=True)
class Pass:
    """The start of a pass over dirty memory; only these figures can be compared.

    Attributes:
        number: 1 for the first; QEMU's dirty-sync-count.
        at: Seconds since the request to move.
        transferred: Bytes sent by then.
        remaining: Raw bytes found dirty by the synchronisation.
    """

    number: int
    at: float
    transferred: int
    remaining: int


@dataclass(frozen=True)
class PhaseChange:
    """The move entered a phase.

    Attributes:
        phase: The phase entered.
        at: Seconds since the request to move.
        reason: The hypervisor's words where it failed, else empty.
    """

    phase: Phase
    at: float
    reason: str = ""


Event = Observation | Pass | PhaseChange
"""What a move's stream consists of."""


@dataclass(frozen=True)
class StartPostcopy:
    """Let the guest run at the destination now; the rest of its memory follows."""


@dataclass(frozen=True)
class Cancel:
    """Give up; the guest goes on at the source. Impossible from post-copy on."""


@dataclass(frozen=True)
class SetDowntimeLimit:
    """Allow the guest to stand still for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class SetBandwidthLimit:
    """Send at most so many bytes per second; None for no limit."""

    rate: float | None


@dataclass(frozen=True)
class Proceed:
    """Hand the guest over: it stands still before switchover, and all else is ready."""


Action = StartPostcopy | Cancel | SetDowntimeLimit | SetBandwidthLimit | Proceed
"""What can be done to a move on its way."""


@dataclass(frozen=True)
class Decision:
    """An action with the reason it was taken.

    Attributes:
        action: What to do.
        reason: One sentence for people, with the figures that led to it.
        at: Seconds since the request to move.
    """

    action: Action
    reason: str
    at: float
