"""What is asked of a move, and who looks on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Policy, Tuning
from whimbrel.model.migration import Decision, Event
from whimbrel.model.plan import Certificate
from whimbrel.model.prediction import Prediction
from whimbrel.ports import Companion, Hypervisor, Journal, Machine
from whimbrel.practice.attend import Attendant
from whimbrel.practice.mend import PATIENCE
from whimbrel.practice.record import Unwritten

Clock = Callable[[], float]


class Watcher(Protocol):
    """Somebody who looks on; nothing here may take long, the move waits for it."""

    def prepared(self, machine: Machine) -> None:
        """The destination waits for its guest in `machine`."""

    def happened(self, event: Event) -> None:
        """Something happened; `event.at` counts from the request."""

    def decided(self, decision: Decision) -> None:
        """Something was decided and will be carried out."""

    def arrived(self, machine: Machine) -> None:
        """The guest runs in `machine`, at the destination."""


class Control(Protocol):
    """Who decides about a move on its way, told of each event in order; see `Convergence`."""

    @property
    def reason(self) -> str:
        """Why it gave up; empty where it did not."""

    @property
    def too_late(self) -> bool:
        """Whether it gave up because the time allowed was over."""

    def hear(self, event: Event) -> Decision | None:
        """Take in what happened and return what to do about it, if anything."""


@dataclass(frozen=True)
class Request:
    """What shall be moved, from where to where, and how.

    Attributes:
        source: The host the guest runs on.
        machine: The guest's machine there.
        destination: The host it shall run on.
        address: Where the destination shall listen.
        tuning: Every setting.
        timeout: Seconds after which the move is cancelled.
        policy: How far the guard may go where the move does not converge; None leaves it alone.
        certificate: When a guarded move has to go over to which rung, counted from the request.
        prediction: What was foreseen of it; the guard is sooner alarmed where that is not met.
        attendants: What acts beside the move while the guest is on its way.
        companions: What travels beside memory.
        journal: Where each step is written down before it is taken.
        vm: What is built at the destination, where its disks lie elsewhere; None: as here.
        patience: Seconds that a post-copy may be without its link before it is left paused.
        control: Who decides on the way; None: whimbrel's own control, by all of the above.
    """

    source: Hypervisor
    machine: Machine
    destination: Hypervisor
    address: MigrationAddress
    tuning: Tuning
    timeout: float
    policy: Policy | None = None
    certificate: Certificate | None = None
    prediction: Prediction | None = None
    attendants: tuple[Attendant, ...] = ()
    companions: tuple[Companion, ...] = ()
    journal: Journal = field(default_factory=Unwritten)
    vm: Vm | None = None
    patience: float = PATIENCE
    control: Control | None = None

    @property
    def place(self) -> MigrationAddress:
        """Where the destination shall listen, over one NIC or over all, as the tuning says."""
        return replace(self.address, mptcp=self.address.mptcp or self.tuning.multipath)

    @property
    def settings(self) -> Tuning:
        """The tuning; the guest waits for companions that need it before it is handed over."""
        if not any(companion.pauses for companion in self.companions):
            return self.tuning
        return replace(self.tuning, pause_before_switchover=True)
