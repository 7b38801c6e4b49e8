"""With what a person does to a VM what whimbrel leaves to people."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ByHand:
    """Commands for one VM on one host, by what runs it there.

    Attributes:
        end: Ends it at once, as a power cut would.
        start: Starts it anew, from its disks.
    """

    end: str = "whimbrel down VM --now"
    start: str = "whimbrel up"
