"""What whimbrel needs of hypervisors and hosts: small protocols, and what each promises.

    Hypervisor.start   ──► Machine                     a VM that runs here
                             │ inspection(): Inspection  a look into its guest's memory
    Hypervisor.receive ──► Reception                   a VM built here, waiting for its state
    Hypervisor.send    ──► Migration                   the state on its way
                             │ watch(): Observation | Pass | PhaseChange …
                             │ apply(Action)
                             ▼ ended(): Ended
    Reception.run()    ──► the guest runs at the destination

The guest runs exactly once because of two rules. A source stops its guest for good before
it reports `COMPLETED` or `POSTCOPY`; a destination starts it only on `Reception.run()`,
which practice calls only after one of these reports.

    memory      what is asked about a guest's memory
    storage     what is asked of a machine's disks
    site        what is asked of a host's operating system
    teller      what its hypervisor tells of a host, where no shell leads there

Every method may raise `HostError` when the hypervisor fails or cannot be reached.
Contracts are checked by tests/contract on every adapter.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.journal import Entry
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Action, Event, Phase
from whimbrel.model.preflight import HypervisorFacts, MachineFacts
from whimbrel.ports.memory import IN_MEMORY, NEVER_PROVIDED, SWAPPED_OUT, Inspection, Look, Written
from whimbrel.ports.site import Finished, Shell, Site, Talk
from whimbrel.ports.storage import Carrying, Export, Mirror, Storage
from whimbrel.ports.teller import Teller

__all__ = [
    "IN_MEMORY",
    "NEVER_PROVIDED",
    "SWAPPED_OUT",
    "Carrying",
    "Companion",
    "Ended",
    "Examiner",
    "Export",
    "Finished",
    "Hypervisor",
    "Inspection",
    "Journal",
    "Look",
    "Machine",
    "Migration",
    "Mirror",
    "Reception",
    "Shell",
    "Site",
    "Standing",
    "Storage",
    "Talk",
    "Teller",
    "Written",
]


@dataclass(frozen=True)
class Standing:
    """What a machine says of itself.

    Attributes:
        running: Whether its guest executes now.
        phase: How far the last move from it or to it is; IDLE where there was none.
        reason: The hypervisor's words where that failed.
    """

    running: bool
    phase: Phase
    reason: str = ""


class Machine(Protocol):
    """A VM on one host; its lifetime ends with `stop`, or when its process ends."""

    @property
    def vm(self) -> Vm:
        """What it was built from."""

    @property
    def pid(self) -> int | None:
        """The process that holds it; None where there is none to name."""

    def channel(self, name: str) -> Path:
        """Return the private UNIX socket of one of the VM's channels."""

    def inspection(self) -> Inspection:
        """Return what looks into its guest's memory; valid as long as the machine."""

    def storage(self) -> Storage:
        """Return what knows and copies its disks; valid as long as the machine."""

    async def record(self, vm: Vm) -> None:
        """Remember that this is what it is made of now, for whoever finds it later as well."""

    async def running(self) -> bool:
        """Tell whether its guest executes now (False once the process has gone)."""

    async def standing(self) -> Standing:
        """Return what it says of itself and of a move; `HostError` once the process has gone."""

    async def resume(self) -> None:
        """Let its guest go on; after a failed move this is how the source takes it back."""

    async def forget_move(self) -> None:
        """Take away what only a move needed (its keys); harmless where there is nothing.

        To be called when no move is under way, and none that could be taken up again.
        """

    async def stop(self) -> None:
        """End it and everything that belongs to it; harmless when it has ended."""


class Reception(Protocol):
    """A destination that waits for one guest."""

    @property
    def address(self) -> MigrationAddress:
        """Where it listens, with the port it chose."""

    @property
    def machine(self) -> Machine:
        """The VM into which the guest will come."""

    async def run(self) -> None:
        """Let the guest run here as soon as its state is whole enough; returns when it runs.

        Raises `HostError` when it cannot; the guest then does not run here.
        """

    async def listen_again(self) -> MigrationAddress:
        """Let go of a dead connection of post-copy, and wait for it to be taken up again.

        Returns where. `CommandRefused` when no post-copy has lost its connection;
        `MachineEnded` when the destination has, for good; `Unsupported` where its host cannot.
        """


class Companion(Protocol):
    """What travels beside memory (disks), told when each thing is due.

    Its methods are called one at a time, in the order in which they stand here; the last two
    exclude each other. Each may raise `HostError`; the first two thereby end the move, with
    the guest at the source.
    """

    @property
    def pauses(self) -> bool:
        """Whether the guest must stand still for `before_handover`, which else is not called."""

    async def before_memory(self, reception: Reception) -> None:
        """Make ready; returns when memory may begin (mirrors in step).

        May be cancelled at any moment, and is then followed by `after_failure`.
        """

    async def before_handover(self) -> None:
        """Make the copy whole and let go of it: the guest stands still at the source."""

    async def after_failure(self, machine: Machine | None) -> None:
        """Undo, and leave nothing at the destination: the guest stays at the source.

        Also called where `before_memory` was not, or failed. What cannot be undone by now is
        raised: it is told, and undone by `whimbrel recover`.

        Args:
            machine: The guest's machine as it is reached now; None: its process has ended, and
                the guest never ran at the destination.
        """

    async def after_arrival(self) -> None:
        """Release what is left at the source: the guest runs at the destination for good.

        The source's process has ended.
        """


class Journal(Protocol):
    """Where a move is written down; read by whoever finds it after a crash."""

    async def write(self, entry: Entry) -> None:
        """Append and flush to disk before it returns; raises `HostError` when it cannot."""

    def note(self, entry: Entry) -> None:
        """Append without waiting for the disk, if that can be done; never raises."""


@dataclass(frozen=True)
class Ended:
    """The source's last word on a migration; None where it does not say.

    Attributes:
        phase: One of `ENDS`.
        reason: The hypervisor's words where it failed.
        total_time: Seconds.
        setup_time: Seconds.
        downtime: Seconds.
        transferred: Bytes.
    """

    phase: Phase
    reason: str = ""
    total_time: float | None = None
    setup_time: float | None = None
    downtime: float | None = None
    transferred: int | None = None


class Migration(Protocol):
    """A guest on its way, seen from the source."""

    def watch(self) -> AsyncIterator[Event]:
        """Yield what happens, ending after the `PhaseChange` to one of `ENDS`.

        Phases follow `TRANSITIONS`; passes come numbered upwards; `at` counts from `send`. The
        stream ends or raises `HostError`: it never goes silent. To be iterated once.
        """

    async def apply(self, action: Action) -> None:
        """Carry out an action; `CommandRefused` when it is too late for it."""

    async def pause(self) -> None:
        """Let go of the connection of a post-copy that has gone silent; the phase says so then.

        `CommandRefused` when there is no post-copy to pause.
        """

    async def resume(self, address: MigrationAddress) -> None:
        """Take a paused post-copy up again; returns when both sides are in touch.

        Where the way is still broken this raises `HostError`, or takes as long as the network
        gives a connection; it may be cancelled meanwhile, and be tried again.
        """

    async def ended(self) -> Ended:
        """Return the source's last figures; to be called after `watch` has ended."""


class Hypervisor(Protocol):
    """One host's hypervisor."""

    @property
    def name(self) -> str:
        """The host's name, for people."""

    async def capabilities(self) -> frozenset[Capability]:
        """Return what this host can do; probed once from the real program."""

    async def lacking(self) -> Mapping[Capability, str]:
        """Return the reason for every capability that this host does not have."""

    async def start(self, vm: Vm) -> Machine:
        """Boot a VM; raises `HostError` with the program's own words when it does not start."""

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> Reception:
        """Build the VM without starting it, prepare its memory, and listen at `address`.

        Raises `Unsupported` when `tuning` needs what this host lacks. After any failure
        nothing of it is left.
        """

    async def send(self, machine: Machine, tuning: Tuning, address: MigrationAddress) -> Migration:
        """Start moving a machine's guest; the guest goes on running here meanwhile."""

    async def rejoin(self, machine: Machine) -> Migration:
        """Return the move from here that somebody else began, as far as it has come.

        `CommandRefused` when none is under way. Its stream begins with the phase it is in.
        """

    async def expecting(self, machine: Machine, address: MigrationAddress) -> Reception:
        """Return what somebody else made of `machine`: a destination listening at `address`."""

    async def seek(self, name: str) -> Machine | None:
        """Return the machine of that name; None when this host is sure to hold none that lives."""

    def by_hand(self, name: str) -> ByHand:
        """Return with what a person ends a VM of that name on this host, or starts it anew."""


class Examiner(Protocol):
    """What one host's hypervisor tells a preflight; nothing is changed by asking."""

    async def machine(self, machine: Machine) -> MachineFacts:
        """Return the facts of a VM that runs here."""

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        """Return what can be built here for a VM, under its accelerator.

        Raises `CommandRefused` with the program's words when it cannot even be started so.
        """

    async def ports(self) -> tuple[int, int] | None:
        """Return the first and the last port at which moves arrive here where none is named.

        None: at any that is free.
        """
