"""What holds for every move unless its command says otherwise."""

from dataclasses import dataclass
from enum import StrEnum

from whimbrel.model.plan import Goal

LONGEST_DOWNTIME = 2000.0
"""Seconds; QEMU refuses a higher downtime-limit (MAX_MIGRATE_DOWNTIME_SECONDS)."""


class Encryption(StrEnum):
    """Whether what a move sends is encrypted."""

    AUTO = "auto"  # unless both hosts call the migration address a trusted link
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class MovePolicy:
    """How far moves may go, and what they aim at.

    Attributes:
        max_downtime: Seconds the guest may stand still at switchover.
        deadline: Seconds from the request until the guest has moved; None: no deadline.
        postcopy: Whether the guest may move before its memory. A failure of either host or
            of the link then loses it.
        goal: What shall be small.
        encryption: Whether memory and disks are encrypted on their way.
    """

    max_downtime: float = 1.0
    deadline: float | None = None
    postcopy: bool = True
    goal: Goal = Goal.FASTEST
    encryption: Encryption = Encryption.AUTO
