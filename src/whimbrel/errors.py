"""Everything that can go wrong, and the exit code each owns.

    WhimbrelError                 what failed, what holds now, what to do        exit
    ├── ConfigError               a value somebody wrote is wrong                   2
    ├── NoFeasiblePlan            no candidate can complete; reasons kept           3
    ├── HostError                 a host or its hypervisor failed                   6
    │   ├── HostUnreachable       no connection, or it broke
    │   │   └── MachineEnded      because the process that held the VM has ended
    │   ├── CommandRefused        the hypervisor said no to a command
    │   ├── ProtocolError         it answered what we cannot read
    │   ├── Unsupported           it lacks a capability that was asked for
    │   └── Held                  another whimbrel moves this VM, or died moving it
    ├── MigrationError            the move failed; the guest is safe at the source  4
    │   └── PlaceUnknown          we do not know where the guest runs               5
    │       └── GuestLost         it runs nowhere any more, and cannot be resumed
    └── LabError                  the lab could not be built or used                7

Exit 0 means done, 1 our own bug, 8 moved but a goal was missed, 130 interrupted.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of every whimbrel command."""

    DONE = 0
    BUG = 1
    CONFIG = 2
    NO_PLAN = 3
    SAFE_AT_SOURCE = 4
    PLACE_UNKNOWN = 5
    HOST = 6
    LAB = 7
    GOAL_MISSED = 8
    INTERRUPTED = 130


class WhimbrelError(Exception):
    """Something that whimbrel can explain.

    Attributes:
        what: What failed and what holds now, one or two sentences.
        hint: What to do about it; empty where there is nothing to do.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class ConfigError(WhimbrelError):
    """A value given by a person (flag, file, argument) cannot be used."""

    exit_code = ExitCode.CONFIG


class NoFeasiblePlan(WhimbrelError):
    """No way to move this guest holds within the limits."""

    exit_code = ExitCode.NO_PLAN


class HostError(WhimbrelError):
    """A host or its hypervisor failed."""

    exit_code = ExitCode.HOST


class HostUnreachable(HostError):
    """A connection could not be made, or broke."""


class MachineEnded(HostUnreachable):
    """The process that held a VM has ended, for sure."""


class CommandRefused(HostError):
    """The hypervisor refused a command; its own words are in `what`."""


class ProtocolError(HostError):
    """The hypervisor answered something that cannot be read."""


class Unsupported(HostError):
    """The hypervisor lacks a capability that was asked for."""


class Held(HostError):
    """A VM is being moved by another whimbrel, or was when that one died; `what` says whose."""


class MigrationError(WhimbrelError):
    """A move failed and the guest is safe at the source."""

    exit_code = ExitCode.SAFE_AT_SOURCE


class PlaceUnknown(MigrationError):
    """It is not known where the guest runs; `hint` says how to find out."""

    exit_code = ExitCode.PLACE_UNKNOWN


class GuestLost(PlaceUnknown):
    """The guest runs nowhere any more, and no host has all of it; `what` says why."""


class LabError(WhimbrelError):
    """The lab could not be built, used or removed."""

    exit_code = ExitCode.LAB
