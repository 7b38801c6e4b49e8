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

Every method may raise `HostError` when the hypervisor fails or cannot be reached.
Contracts are checked by tests/contract on every adapter.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from whimbrel.model.inventory import Capability, Disk, MigrationAddress, Vm
from whimbrel.model.journal import Entry
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Action, Event, Phase
from whimbrel.model.preflight import HypervisorFacts, MachineFacts
from whimbrel.model.storage import Copying, DiskFacts, DiskWrites, Extent


@dataclass(frozen=True)
class Look:
    """What some pages held at one moment.

    Attributes:
        began: When the first page was read, seconds of a clock that all looks share.
        ended: When the last one was; those between were read evenly in between.
        marks: 8 bytes per page in the order they were asked for. Equal marks mean equal
            content, but for one chance in 2^32; all zeros mean a zero page.
    """

    began: float
    ended: float
    marks: bytes


@dataclass(frozen=True)
class Written:
    """Distinct pages written within one window, as the hypervisor counted them.

    Attributes:
        window: Seconds.
        pages: How many.
        error: Standard error of `pages`.
    """

    window: float
    pages: float
    error: float


NEVER_PROVIDED, IN_MEMORY, SWAPPED_OUT = 0, 1, 2
"""What `Inspection.provided` says of a page."""


class Inspection(Protocol):
    """Looks into a guest's memory from outside.

    Nothing here stops or slows the guest, provides it with a page it had not touched, or
    brings back one that was swapped out. Where memory cannot be read (it belongs to another
    user, or another host) `provided`, `look` and `read` raise `Unsupported`; the others work.
    """

    @property
    def pages(self) -> int:
        """Number of pages of guest memory, 4096 bytes each, counted from 0."""

    async def provided(self) -> bytes:
        """Return one byte per page: never provided, in memory, or swapped out."""

    async def look(self, pages: Sequence[int]) -> Look:
        """Mark the content of pages, each of which `provided` called in memory."""

    async def read(self, pages: Sequence[int]) -> bytes:
        """Return the content of such pages, one after the other; meant for a few thousand."""

    async def written(self, window: float) -> Written:
        """Let the hypervisor count for so many seconds (0.05 to 60); coarse.

        A page rewritten with what it held may not count. Raises `Unsupported` where it
        cannot count.
        """

    async def free_bytes(self) -> int | None:
        """Return the bytes that the guest's kernel calls free; None when nobody tells.

        May take two seconds, and leaves the balloon's settings as they were.
        """

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """Return the CPU seconds each vCPU has used; empty where that is not known."""


class Mirror(Protocol):
    """The copy of one disk on its way, and in step once it is ready."""

    @property
    def disk(self) -> str:
        """The disk's name."""

    async def progress(self) -> Copying:
        """Return how far it is; never raises for a copy that failed, but says so."""

    async def block_writes(self) -> None:
        """Let the guest's writes wait for their copies from now on (write-blocking)."""

    async def limit(self, rate: float | None) -> None:
        """Copy at most so many bytes per second in the background; None: no limit."""

    async def finish(self) -> None:
        """Make the copy whole and let go of it; the machine keeps its old disk.

        For a ready copy, best while its guest stands still: returns when both are the same.
        Raises `HostError` when the copy is not whole.
        """

    async def pivot(self) -> None:
        """Make the copy whole and let the machine go on with it; the old disk is let go.

        For a ready copy into an image of this host. Raises `HostError` when the machine still
        has its old disk.
        """

    async def abandon(self) -> None:
        """Give the copy up; the machine keeps its disk. Harmless when it has ended."""


class Export(Protocol):
    """Disks that a destination offers to be written, on the migration address."""

    @property
    def address(self) -> MigrationAddress:
        """Where, with the port that was found free, and the same key."""

    async def stop(self) -> None:
        """Offer nothing any more and listen no more; harmless when it has ended."""


class Storage(Protocol):
    """The disks of one machine.

    Disks are named as in its `Vm`. `HostError` and its kin are raised as everywhere.
    """

    async def disks(self) -> tuple[DiskFacts, ...]:
        """Return what the machine's disks are, in the order in which they are plugged."""

    async def writes(self) -> Mapping[str, DiskWrites]:
        """Return what the guest wrote to each disk since its machine began here."""

    async def export(self, address: MigrationAddress, disks: Sequence[str]) -> Export:
        """Offer disks to be written at a destination that has not received its guest yet."""

    async def mirror(
        self,
        disk: str,
        place: MigrationAddress | Disk,
        extent: Extent,
        rate: float | None = None,
    ) -> Mirror:
        """Begin to copy a disk to where it is exported, or into another image on this host.

        The other image is given as the disk that it will be. The place must be as large as the
        disk, and read as zeros where nothing was written (`Extent.WHOLE`) or as what the disk
        rests on (`Extent.TOP`). `rate` limits bytes per second. After a failure nothing of the
        copy is left.
        """

    async def release(self) -> None:
        """Give up every copy and export that whimbrel began here, this one or an earlier one."""


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

    def storage(self) -> "Storage":
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

        Returns where. `CommandRefused` when no post-copy has lost its connection.
        """


class Companion(Protocol):
    """What travels beside memory (disks), told when each thing is due.

    Its methods are called one at a time, in the order in which they stand here; the last two
    exclude each other. Each may raise `HostError`; the first two thereby end the move, with
    the guest at the source.
    """

    async def before_memory(self, reception: Reception) -> None:
        """Make ready; returns when memory may begin (mirrors in step).

        May be cancelled at any moment, and is then followed by `after_failure`.
        """

    async def before_handover(self) -> None:
        """Make the copy whole and let go of it: the guest stands still at the source."""

    async def after_failure(self) -> None:
        """Undo, and leave nothing at the destination: the guest stays at the source.

        Both machines are still there. Also called where `before_memory` was not, or failed.
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


class Examiner(Protocol):
    """What one host's hypervisor tells a preflight; nothing is changed by asking."""

    async def machine(self, machine: Machine) -> MachineFacts:
        """Return the facts of a VM that runs here."""

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        """Return what can be built here for a VM, under its accelerator.

        Raises `CommandRefused` with the program's words when it cannot even be started so.
        """


@dataclass(frozen=True)
class Finished:
    """A command that has ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        output: What it wrote to its standard output.
        errors: What it wrote to its standard error.
    """

    code: int
    output: bytes
    errors: bytes


class Talk(Protocol):
    """A running command, talked to over its standard input and output."""

    async def write(self, content: bytes) -> None:
        """Write all of it; `HostUnreachable` when the command or the way to it is gone."""

    async def read_line(self) -> bytes:
        """Return the next line with its end; `HostUnreachable` when there is none to come."""

    async def close(self) -> None:
        """End the command; harmless when it has ended."""


class Shell(Protocol):
    """The way onto one host: this machine's own, or SSH.

    Words are passed on one by one, never as a string that a shell would read again.
    Everything here raises `HostUnreachable` when the host cannot be reached or the way breaks.
    """

    @property
    def name(self) -> str:
        """The host's name, for people."""

    async def run(
        self, words: Sequence[str], *, given: bytes = b"", within: float = 60.0
    ) -> Finished:
        """Run a command to its end; a nonzero code is no error here."""

    async def talk(self, words: Sequence[str]) -> Talk:
        """Start a command to talk to."""

    async def socket(self, path: str) -> Path:
        """Return a private UNIX socket on this machine that leads to the one at `path` there.

        Valid until `close`. Nothing is said of whether anybody listens at `path`.
        """

    async def close(self) -> None:
        """End every command and connection; harmless when that is done."""


class Site(Protocol):
    """One host's operating system, asked through a program that whimbrel brings along.

    Nothing is installed: the program (sites/onsite, standard library only) is sent over the
    shell, runs on the host's Python, and ends with the connection.
    """

    @property
    def name(self) -> str:
        """The host's name, for people."""

    @property
    def folder(self) -> str:
        """The private folder on that host in which VMs' sockets and state lie."""

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        """Return the answer to one question of sites/onsite; plain data, or bytes.

        Several may be asked at once. Raises `HostUnreachable` when the host or the way to it
        fails or `within` seconds bring no answer, and `CommandRefused` with the host's words
        when it cannot be answered.
        """

    async def socket(self, path: str) -> Path:
        """See `Shell.socket`."""

    async def close(self) -> None:
        """End the program and the connection; VMs go on."""
