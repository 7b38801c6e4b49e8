"""The hosts of a config as a command uses them: reached together, closed together.

    async with opened(load(config)) as session:
        vm = await session.find("web")          which host has it
        place = session.place(vm.host)          what runs it there: plain QEMU, or libvirt

A host is connected when it is first asked, and all of them at the same time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import typer

from whimbrel.cli.place import LibvirtPlace, Place, QemuPlace
from whimbrel.config import Config
from whimbrel.config.readers import nearest
from whimbrel.config.settled import HOW_TO_NAME
from whimbrel.errors import ConfigError, HostError, HostUnreachable
from whimbrel.hypervisors.connect import connect as hypervisor
from whimbrel.hypervisors.connect import connect_libvirt, runs_libvirt
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt import host_seen as libvirt_seen
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.command_line import BINARY
from whimbrel.model.inventory import Capability, Host
from whimbrel.model.overview import HOLDING, HostSeen, VmSeen, VmState, host_seen
from whimbrel.model.uri import parse_uri
from whimbrel.model.wording import listed
from whimbrel.ports import Site
from whimbrel.sites.connect import connect

T = TypeVar("T")

SEEN_WITHIN = 30.0
"""Seconds for a host to be reached and to tell what is on it; after that it is unreachable.

A busy host takes its time. One that is off or cut off is noticed far sooner, by the limits that
SSH has of its own (sites/ssh.py: REACHED_WITHIN, CONNECT_WITHIN, ALIVE_EVERY)."""

LIBVIRT_SEEN_WITHIN = 15.0
"""The same where libvirt runs the host: it has no such limits, and waits as long as TCP does."""


class Session:
    """Every host of a config; made by `opened`.

    Attributes:
        config: What names them.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._sites: dict[str, Site] = {}
        self._hypervisors: dict[str, ResidentHost] = {}
        self._libvirts: dict[str, LibvirtHost] = {}
        self._places: dict[str, Place] = {}
        self._kept = AsyncExitStack()

    @property
    def hosts(self) -> Sequence[Host]:
        """Every host, in the file's order; raises `ConfigError` where there is none."""
        if not self.config.hosts:
            where = f"{self.config.path} names no host." if self.config.path else NO_FILE
            raise ConfigError(where, HOW_TO_NAME)
        return list(self.config.hosts.values())

    def site(self, name: str) -> Site:
        """Return a host's site, not yet connected; `ConfigError` for an unknown name."""
        host = self.config.host(name)
        if name not in self._sites:
            self._sites[name] = connect(host)
        return self._sites[name]

    def shell(self, name: str) -> Site | None:
        """Return a host's site, as `site` does; None where only libvirt leads to the host."""
        return self.site(name) if parse_uri(self.config.host(name).uri).shell else None

    def shells(self, names: Iterable[str]) -> list[Site]:
        """Return the sites of those hosts to which a shell leads."""
        found = (self.shell(name) for name in names)
        return [site for site in found if site is not None]

    def hypervisor(self, name: str) -> ResidentHost:
        """Return a host's plain QEMU, of which nothing is asked yet.

        `ConfigError` for an unknown name, and for a host that libvirt runs.
        """
        if name not in self._hypervisors:
            self._hypervisors[name] = hypervisor(self.config.host(name), self.site(name))
        return self._hypervisors[name]

    def libvirt(self, name: str) -> LibvirtHost:
        """Return a host's libvirt, of which nothing is asked yet; `ConfigError` likewise."""
        host = self.config.host(name)
        if name not in self._libvirts:
            place = parse_uri(host.uri)
            if place.unguarded:
                typer.echo(f"Host {name}: {UNGUARDED}", err=True)
            self._libvirts[name] = connect_libvirt(host, self.shell(name))
        return self._libvirts[name]

    def place(self, name: str) -> Place:
        """Return what runs a host's VMs, whatever it is; `ConfigError` for an unknown name."""
        if name not in self._places:
            libvirt = runs_libvirt(self.config.host(name))
            self._places[name] = (
                LibvirtPlace(self.libvirt(name)) if libvirt else QemuPlace(self.hypervisor(name))
            )
        return self._places[name]

    def refuse_libvirt(self, vm: VmSeen, instead: str) -> None:
        """Raise `ConfigError` for a VM that libvirt runs, with what is typed `instead`."""
        if runs_libvirt(self.config.host(vm.host)):
            what = f"{vm.name} on {vm.host} is run by libvirt, and this is for plain QEMU."
            raise ConfigError(what, f"{instead}   # on {vm.host}")

    def with_shell(self) -> Mapping[str, Site]:
        """Return the sites of all hosts to which a shell leads, by name."""
        return {host.name: self.site(host.name) for host in self.hosts if parse_uri(host.uri).shell}

    async def lacking(self, name: str) -> Mapping[Capability, str]:
        """Return why a host lacks what it lacks, whatever runs it."""
        return await self.place(name).hypervisor.lacking()

    async def close(self) -> None:
        """Undo what is held on the hosts, and end all connections; VMs go on."""
        await self._kept.aclose()
        held, self._hypervisors = self._hypervisors, {}
        libvirts, self._libvirts = self._libvirts, {}
        sites, self._sites = self._sites, {}
        self._places = {}
        await asyncio.gather(*(host.close() for host in libvirts.values()))
        await asyncio.gather(*(host.close() for host in held.values()))
        await asyncio.gather(*(site.close() for site in sites.values()))

    async def hold(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter something on the hosts that is left when the session ends."""
        return await self._kept.enter_async_context(context)

    async def see(self, names: Iterable[str] | None = None) -> list[HostSeen]:
        """Look at hosts, all of them unless named, and at their VMs; all at once.

        One that cannot be asked holds up no other: it is told as unreachable.
        """
        chosen = [host.name for host in self.hosts] if names is None else list(names)
        return list(await asyncio.gather(*(self._see(name) for name in chosen)))

    async def find(self, vm: str, on: str | None = None) -> VmSeen:
        """Return the one VM of a name; where it is on its way, the one that has its guest.

        Args:
            vm: Its name.
            on: The only host to look at.

        Raises:
            ConfigError: There is none, or several; the hint has the nearest names.
            HostUnreachable: There is none on the hosts that answered, but others did not.
        """
        seen = await self.see(None if on is None else [on])
        return the_one(vm, seen)

    async def _see(self, name: str) -> HostSeen:
        host = self.config.host(name)
        within = LIBVIRT_SEEN_WITHIN if runs_libvirt(host) else SEEN_WITHIN
        try:
            async with asyncio.timeout(within):
                if runs_libvirt(host):
                    return await libvirt_seen(self.libvirt(name))
                site = self.site(name)
                facts, vms = await asyncio.gather(
                    site.ask("facts", qemu=BINARY),
                    site.ask("vms_overview", folder=host.folder, sockets=list(host.sockets)),
                )
        except HostError as error:
            return HostSeen(name, unreachable=str(error))
        except TimeoutError:
            return HostSeen(name, unreachable=f"{name} did not answer within {within:.0f} s.")
        return host_seen(name, facts, vms)


UNGUARDED = (
    "libvirt+tcp is for labs only: anybody may listen on the way, and anybody may come in. "
    "Use libvirt+ssh or libvirt+tls."
)

NO_FILE = "There is no whimbrel.toml, neither here nor in your config folder."


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Session]:
    """Hold a session; its connections end with it."""
    session = Session(config)
    try:
        yield session
    finally:
        await session.close()


def the_one(name: str, hosts: Sequence[HostSeen]) -> VmSeen:
    """Choose among all that was seen; see `Session.find`."""
    every = [vm for host in hosts for vm in host.vms]
    named = [vm for vm in every if vm.name == name]
    alive = [vm for vm in named if vm.state is not VmState.ENDED]
    holding = [vm for vm in named if vm.state in HOLDING]
    for found in (holding, alive, named):
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(
                f'There is a VM "{name}" on {listed(vm.host for vm in found)}.',
                "Say which: --on HOST. To move one of them, give the other another name first.",
            )
    raise _missing(name, hosts, every)


def _missing(
    name: str, hosts: Sequence[HostSeen], every: Sequence[VmSeen]
) -> ConfigError | HostUnreachable:
    asked = [host.name for host in hosts if not host.unreachable]
    silent = [host for host in hosts if host.unreachable]
    none = f'There is no VM "{name}" on {listed(asked)}'
    if silent:
        names = [host.name for host in silent]
        cannot = f"{listed(names)} cannot be asked"
        place = "there" if len(names) == 1 else "on one of them"
        what = f"{none}; {cannot}, and it may be {place}."
        if not asked:
            what = f'{cannot}, so it is not known where "{name}" is.'
        return HostUnreachable(what, "\n".join(host.unreachable for host in silent))
    known = [vm.name for vm in every]
    return ConfigError(f"{none}.", nearest(name, known) if known else "See: whimbrel vms")
