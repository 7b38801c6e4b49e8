"""What whimbrel needs of a hypervisor: five small protocols, and what each promises.

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

from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Action, Event, Phase


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

    async def running(self) -> bool:
        """Tell whether its guest executes now (False once the process has gone)."""

    async def resume(self) -> None:
        """Let its guest go on; after a failed move this is how the source takes it back."""

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
