"""What libvirt says of a VM's state and of what happens to it, in words of ours.

Numbers are those of libvirt's header libvirt-domain.h, which never change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from whimbrel.model.migration import Side

_RUNNING, _PAUSED, _SHUTTING_DOWN = {1, 2, 7}, 3, 4
"""virDomainState: running, blocked and suspended in the guest all run. One that shuts down does
not: libvirt calls it so when QEMU has stopped the guest and is about to end."""

_RUNS_IN_POSTCOPY, _RUNS_IN_FAILED_POSTCOPY = 10, 11  # virDomainRunningReason


class State(StrEnum):
    """What a VM does."""

    RUNNING = "running"
    RUNNING_IN_POSTCOPY = "running-in-postcopy"  # at the destination, memory still coming
    RUNNING_IN_LOST_POSTCOPY = "running-in-lost-postcopy"  # likewise, its connection is lost
    PAUSED = "paused"
    HANDED_OVER = "handed-over"  # stands still at the source for switchover
    ARRIVING = "arriving"  # waits at the destination for its guest
    POSTCOPY = "postcopy"  # stands still at the source, memory still going
    LOST_POSTCOPY = "lost-postcopy"  # likewise, its connection is lost
    ENDING = "ending"  # its guest has stopped, and QEMU is about to end
    OFF = "off"
    GONE = "gone"  # libvirt knows it no more

    @classmethod
    def told(cls, number: int, reason: int) -> Self:
        """Return what libvirt's state and reason mean."""
        if number in _RUNNING:
            words = {_RUNS_IN_POSTCOPY: "running-in-postcopy"}
            words[_RUNS_IN_FAILED_POSTCOPY] = "running-in-lost-postcopy"
            return cls(words.get(reason, "running"))
        if number == _PAUSED:
            return cls(_PAUSES.get(reason, "paused"))
        return cls("ending" if number == _SHUTTING_DOWN else "off")

    @property
    def runs(self) -> bool:
        """Whether its guest executes."""
        return self in {
            State.RUNNING,
            State.RUNNING_IN_POSTCOPY,
            State.RUNNING_IN_LOST_POSTCOPY,
        }

    @property
    def busy(self) -> bool:
        """Whether libvirt lets whoever asks for more than this wait, for half a minute."""
        return self in {
            State.ARRIVING,
            State.RUNNING_IN_POSTCOPY,
            State.RUNNING_IN_LOST_POSTCOPY,
        }

    @property
    def lives(self) -> bool:
        """Whether there is a QEMU for it."""
        return self not in {State.OFF, State.GONE}


# virDomainPausedReason
_PAUSES = {2: "handed-over", 11: "arriving", 12: "postcopy", 13: "lost-postcopy"}


@dataclass(frozen=True)
class Happening:
    """One thing that libvirt told.

    Attributes:
        kind: "pass", "job" (it is done), or what happened to the VM: "started", "paused",
            "handed-over", "postcopy", "lost-postcopy", "resumed", "stopped", "left" (it has moved
            away); "other".
        number: The pass that begins.
        figures: The job's last figures.
        side: Whose libvirt told it.
    """

    kind: str
    number: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    side: Side = Side.SOURCE

    @classmethod
    def lifecycle(cls, kind: int, detail: int) -> Self:
        """Return what virDomainEventType and its detail mean."""
        if kind == _EVENT_SUSPENDED:
            return cls(_SUSPENSIONS.get(detail, "paused"))
        if (kind, detail) == _LEFT:
            return cls("left")
        return cls({2: "started", _EVENT_RESUMED: "resumed", 5: "stopped"}.get(kind, "other"))


_EVENT_SUSPENDED, _EVENT_RESUMED = 3, 4
_LEFT = (5, 3)
# virDomainEventSuspendedDetailType
_SUSPENSIONS = {1: "handed-over", 7: "postcopy", 8: "lost-postcopy"}


@dataclass(frozen=True)
class Versions:
    """What answers at a connection, each as libvirt counts: 11.3.0 is 11003000.

    Attributes:
        library: libvirt on this machine.
        daemon: libvirt on that host.
        hypervisor: Its QEMU.
    """

    library: int
    daemon: int
    hypervisor: int
