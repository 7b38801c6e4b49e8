"""The one file that knows libvirt-python: its calls in threads, its events on the event loop.

    Connection.open(name, uri) ──► domain(name), boot(xml) ──► Domain
                                   listen(domain) ──► what libvirt tells of it

libvirt's calls block, some of them for as long as a move takes, so each runs in a thread of the
connection's own. Its events come from one thread of this process, and are handed to the event
loop of whoever listens. What libvirt refuses becomes an error of `whimbrel.errors`.

libvirt-python is optional (`pip install whimbrel[libvirt]`): without it `open` says so.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from whimbrel.errors import CommandRefused, HostError, HostUnreachable, Unsupported
from whimbrel.hypervisors.libvirt.disk_calls import DiskCalls
from whimbrel.hypervisors.libvirt.ears import Ears
from whimbrel.hypervisors.libvirt.pool_calls import PoolCalls
from whimbrel.hypervisors.libvirt.states import Happening, State, Versions
from whimbrel.hypervisors.libvirt.threads import Threads, leave_open

try:
    import libvirt
except ImportError:  # an extra
    libvirt = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from whimbrel.model.migration import Side

T = TypeVar("T")

ALIVE_EVERY, SILENT_AFTER = 1, 25
"""libvirt's keep-alive: seconds between questions, how many may go unanswered; see `_opened`."""

_CLOSES_WITHIN = 5.0

_NOT_SUPPORTED = (
    "NO_SUPPORT",
    "ARGUMENT_UNSUPPORTED",
    "CONFIG_UNSUPPORTED",
    "OPERATION_UNSUPPORTED",
)


class NoSuchDomain(CommandRefused):
    """libvirt holds no VM of that name, or no more."""


class Busy(CommandRefused):
    """Another job has the VM, for so long that libvirt did not begin with ours."""


class Aborted(CommandRefused):
    """A job ended because somebody called it off."""


class Connection(PoolCalls):
    """One open connection to a host's libvirt; made by `open`, to be closed."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle
        self._ears: list[Ears] = []
        self._listening = False
        self._threads = Threads(f"libvirt-{name}")

    @classmethod
    async def open(cls, name: str, uri: str) -> Self:
        """Connect to the host called `name`, by libvirt's own URI.

        Raises:
            Unsupported: libvirt-python is not installed.
            HostUnreachable: Nobody answers there, or lets us in.
        """
        if libvirt is None:
            raise Unsupported(
                f"Host {name} is run by libvirt, and libvirt-python is not installed.",
                'Install it beside whimbrel: pip install "whimbrel[libvirt]".',
            )
        _hear_events()
        try:
            handle = await asyncio.to_thread(_opened, uri)
        except libvirt.libvirtError as error:
            raise HostUnreachable(
                f"libvirt on host {name} cannot be reached: {error}",
                f"Try it with libvirt's own client: virsh -c '{uri}' version",
            ) from error
        connection = cls(name, handle)
        with suppress(HostError):  # a connection without keep-alive has no network to lose
            await connection.call(handle.setKeepAlive, ALIVE_EVERY, SILENT_AFTER)
        return connection

    async def close(self) -> None:
        """Let go of it; VMs go on, and so does what libvirt does by itself."""
        with suppress(HostError, TimeoutError):
            async with asyncio.timeout(_CLOSES_WITHIN):
                await self.call(self._handle.close)
        self._threads.close()

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what one of libvirt's calls returns, made in a thread."""
        try:
            return await self._threads.call(work, *arguments)
        except libvirt.libvirtError as error:
            if not await self.stands():  # libvirt has many words for that
                raise HostUnreachable(f"libvirt on host {self.name} is gone: {error}") from error
            raise self._translated(error) from error
        except RuntimeError as error:  # the threads have been shut down
            raise HostUnreachable(f"The connection to {self.name} is closed.") from error

    async def stands(self) -> bool:
        """Tell whether the connection stands, as far as is known without asking there."""
        with suppress(libvirt.libvirtError, RuntimeError):
            return bool(await self._threads.call(self._handle.isAlive))
        return False

    async def versions(self) -> Versions:
        """Return what answers."""
        daemon = await self.call(self._handle.getLibVersion)
        hypervisor = await self.call(self._handle.getVersion)
        return Versions(libvirt.getVersion(), daemon, hypervisor)

    async def cores(self) -> int:
        """Return the host's cores."""
        return int((await self.call(self._handle.getInfo))[2])

    async def idle(self) -> float:
        """Return the seconds for which the host's cores were idle since boot, all together."""
        every = libvirt.VIR_NODE_CPU_STATS_ALL_CPUS
        told = await self.call(self._handle.getCPUStats, every, 0)
        return sum(int(told.get(each, 0)) for each in ("idle", "iowait")) / 1e9

    async def capabilities(self) -> str:
        """Return what libvirt says of the host, as its XML."""
        return await self.call(self._handle.getCapabilities)

    async def emulator(self, accelerator: str, machine: str | None = None) -> str:
        """Return what libvirt says of its QEMU under an accelerator, as its XML."""
        words = (None, None, machine, accelerator, 0)
        return await self.call(self._handle.getDomainCapabilities, *words)

    async def memory(self) -> tuple[int, int]:
        """Return the host's bytes of memory, and those free, its caches included."""
        told = await self.call(self._handle.getMemoryStats, -1, 0)
        free = sum(int(told.get(each, 0)) for each in ("free", "buffers", "cached"))
        return 1024 * int(told.get("total", 0)), 1024 * free

    async def compare_cpu(self, xml: str, accelerator: str, machine: str | None) -> int:
        """Return 0 where a CPU cannot be had there, 1 for the same, 2 where more could be."""
        words = (None, None, machine, accelerator, xml, 0)
        return await self.call(self._handle.compareHypervisorCPU, *words)

    async def domain(self, name: str) -> Domain | None:
        """Return the VM of that name, living or only defined; None: there is none."""
        try:
            return Domain(self, await self.call(self._handle.lookupByName, name))
        except NoSuchDomain:
            return None

    async def domains(self) -> list[Domain]:
        """Return every VM that libvirt knows of, living or only defined."""
        return [Domain(self, each) for each in await self.call(self._handle.listAllDomains, 0)]

    async def boot(self, xml: str, *, paused: bool = False) -> Domain:
        """Start a VM that libvirt forgets when it ends; `paused`: its guest does not run."""
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        return Domain(self, await self.call(self._handle.createXML, xml, flags))

    async def define(self, xml: str) -> Domain:
        """Let libvirt remember a VM, without starting it."""
        return Domain(self, await self.call(self._handle.defineXML, xml))

    async def listen(self, domain_id: str, side: Side, heard: asyncio.Queue[Happening]) -> Ears:
        """Put what happens from now on to the VM of that UUID into a queue, with its `side`."""
        ears = Ears(self._ears, domain_id, side, heard)
        if not self._listening:  # libvirt takes each kind of listener once per connection
            self._listening = True
            await self.call(self._listen)
        return ears

    def _listen(self) -> None:
        for kind, hear in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._iteration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._job),
        ):
            self._handle.domainEventRegisterAny(None, kind, hear, None)

    def _lifecycle(self, _: Any, domain: Any, kind: int, detail: int, __: Any) -> None:
        self._tell(domain, Happening.lifecycle(kind, detail))

    def _iteration(self, _: Any, domain: Any, number: int, __: Any) -> None:
        self._tell(domain, Happening("pass", number=number))

    def _job(self, _: Any, domain: Any, figures: Mapping[str, Any], __: Any) -> None:
        self._tell(domain, Happening("job", figures=dict(figures)))

    def _tell(self, domain: Any, happening: Happening) -> None:
        for ears in list(self._ears):
            ears.hear(domain.UUIDString(), happening)

    def _translated(self, error: Any) -> HostError:
        number, words = error.get_error_code(), str(error.get_error_message() or error)
        if number == libvirt.VIR_ERR_NO_DOMAIN:
            return NoSuchDomain(f"{self.name}: {words}")
        if number == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return Busy(f"libvirt on host {self.name} refused: {words}")
        if number == libvirt.VIR_ERR_OPERATION_ABORTED:
            return Aborted(f"{self.name}: {words}")
        if number in _numbers("RPC", "NO_CONNECT", "INVALID_CONN", "AUTH_FAILED"):
            return HostUnreachable(f"libvirt on host {self.name} is gone: {words}")
        if number in _numbers(*_NOT_SUPPORTED):
            return Unsupported(f"libvirt on host {self.name} cannot do that: {words}")
        return CommandRefused(f"libvirt on host {self.name} refused: {words}")


class Domain(DiskCalls):
    """One VM as libvirt holds it."""

    def __init__(self, connection: Connection, handle: Any) -> None:
        self.connection: Connection = connection
        self._handle = handle
        self.name: str = handle.name()
        self.id: str = handle.UUIDString()

    async def state(self) -> State:
        """Return what it does; `State.GONE` where libvirt knows it no more."""
        try:
            number, reason = await self._call(self._handle.state, 0)
        except NoSuchDomain:
            return State.GONE
        return State.told(number, reason)

    async def persistent(self) -> bool:
        """Tell whether libvirt remembers it beyond its end."""
        return bool(await self._call(self._handle.isPersistent))

    async def xml(self, *, movable: bool = False) -> str:
        """Return what it is made of; `movable` as another host must build it, with secrets."""
        flags = 0
        if movable:
            flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
        return await self._call(self._handle.XMLDesc, flags)

    async def kept_xml(self) -> str:
        """Return what libvirt would start the next time."""
        flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
        return await self._call(self._handle.XMLDesc, flags)

    async def ask(self, question: str, *words: object) -> Any:
        """Return what libvirt answers to a question of its own, by libvirt-python's name for it."""
        return await self._call(getattr(self._handle, question), *words)

    async def resume(self) -> None:
        """Let its guest go on."""
        await self._call(self._handle.resume)

    async def destroy(self) -> None:
        """End it at once; harmless where it has ended."""
        with suppress(NoSuchDomain):
            if await self.state() not in {State.GONE, State.OFF}:
                await self._call(self._handle.destroy)

    async def forget(self) -> None:
        """Take away what libvirt remembers of it; harmless where there is nothing."""
        with suppress(NoSuchDomain):
            if await self.persistent():
                await self._call(self._handle.undefine)

    async def job(self) -> dict[str, Any]:
        """Return the figures of what it is doing now."""
        return await self._call(self._handle.jobStats, 0)

    async def last_job(self) -> dict[str, Any]:
        """Return the figures of what it did last, as often as one asks."""
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        return await self._call(self._handle.jobStats, flags)

    async def migrate(
        self, there: Connection, flags: Iterable[str], parameters: Mapping[str, Any]
    ) -> None:
        """Move it, led by this process; returns when libvirt has done all of it."""
        words = (there._handle, dict(parameters), _mask(flags))  # noqa: SLF001 - our own
        await self._call(self._handle.migrate3, *words)

    async def migrate_to(
        self, uri: str, flags: Iterable[str], parameters: Mapping[str, Any]
    ) -> None:
        """Move it, led by its host's libvirt, which reaches the other's at `uri`."""
        await self._call(self._handle.migrateToURI3, uri, dict(parameters), _mask(flags))

    async def abort(self) -> None:
        """Call off what it is doing."""
        await self._call(self._handle.abortJob)

    async def pause_postcopy(self) -> None:
        """Let go of the connection of a post-copy."""
        await self._call(self._handle.abortJobFlags, libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY)

    async def start_postcopy(self) -> None:
        """Let its guest run there before its memory is."""
        await self._call(self._handle.migrateStartPostCopy, 0)

    async def set_downtime_limit(self, milliseconds: int) -> None:
        """Allow its guest to stand still for so long; also before a move."""
        await self._call(self._handle.migrateSetMaxDowntime, milliseconds, 0)

    async def set_speed_limit(self, mebibytes: int, *, postcopy: bool = False) -> None:
        """Limit its move to so many MiB/s."""
        flags = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY if postcopy else 0
        await self._call(self._handle.migrateSetMaxSpeed, mebibytes, flags)

    async def memory_facts(self) -> dict[str, int]:
        """Return what its balloon tells of the guest's memory, in KiB."""
        return await self._call(self._handle.memoryStats)

    async def vcpu_times(self) -> tuple[int, ...]:
        """Return the nanoseconds of CPU that each vCPU has used."""
        vcpus, _ = await self._call(self._handle.vcpus)
        return tuple(each[2] for each in vcpus)

    async def count_writes(self, seconds: int) -> None:
        """Begin to count written pages for so many seconds."""
        await self._call(self._handle.startDirtyRateCalc, seconds, 0)

    async def counted_writes(self) -> dict[str, Any]:
        """Return how that counting stands (`dirtyrate.…`)."""
        handle, kind = self.connection._handle, libvirt.VIR_DOMAIN_STATS_DIRTYRATE  # noqa: SLF001
        [(_, told)] = await self._call(handle.domainListGetStats, [self._handle], kind, 0)
        return dict(told)

    async def peek(self, address: int, size: int) -> bytes:
        """Return so many bytes of the guest's physical memory, at most 64 KiB."""
        words = (address, size, libvirt.VIR_MEMORY_PHYSICAL)
        return bytes(await self._call(self._handle.memoryPeek, *words))

    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self.connection.call(work, *arguments)


def _opened(uri: str) -> Any:
    """Return the handle of a host; over SSH by libssh2 if it can be.

    By libssh, libvirt leaves an answer of some ten KiB lying until the next word comes, which is
    that of a keep-alive (11.3). But libssh is in every libvirt, and knows newer keys.
    """
    if "+libssh:" in uri:
        try:
            return libvirt.open(uri.replace("+libssh:", "+libssh2:", 1))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR:  # nobody is there
                raise
    return libvirt.open(uri)


_hearing = threading.Lock()
_heard = False


def _hear_events() -> None:
    """Let libvirt's events come, in a thread of this process's that never ends."""
    global _heard  # noqa: PLW0603 - libvirt has one event loop for a process
    with _hearing:
        if _heard:
            return
        _heard = True
        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print every refusal
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_events, name="libvirt-events", daemon=True).start()
        atexit.register(leave_open, libvirt.__name__)


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _mask(flags: Iterable[str]) -> int:
    """Return migration flags, named as libvirt names them without VIR_MIGRATE_, as its number."""
    mask = 0
    for flag in flags:
        mask |= getattr(libvirt, f"VIR_MIGRATE_{flag}")
    return mask


def _numbers(*names: str) -> set[int]:
    return {getattr(libvirt, f"VIR_ERR_{name}") for name in names}
