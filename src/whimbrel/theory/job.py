"""What is to be simulated: the guest and how it is moved, and the control that conducts it."""

from dataclasses import dataclass

from whimbrel.model.memory import Survey
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase, PhaseChange
from whimbrel.theory.arrays import Floats
from whimbrel.theory.convergence import Convergence
from whimbrel.theory.rules import QemuRules


@dataclass(frozen=True)
class Job:
    """What is to be simulated.

    Attributes:
        survey: Guest, link and hosts.
        tuning: How it is moved.
        rules: The QEMU that moves it.
        deadline: Seconds since the request after which the move is given up.
        controlled: Whether the convergence control watches, as it does a real move; if not,
            the move is left alone but for changes made from outside.
    """

    survey: Survey
    tuning: Tuning
    rules: QemuRules
    deadline: float
    controlled: bool = True

    def controls(self, start: Floats) -> list[Convergence]:
        """Return one control per draw, told when its pre-copy began, (D,)."""
        controls = [Convergence(self.tuning, self.deadline) for _ in start]
        for control, at in zip(controls, start, strict=True):
            control.hear(PhaseChange(Phase.PRECOPY, float(at)))
        return controls
