"""The tables of `whimbrel.toml`, and the rules that only hold between them (docs/config.md)."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from whimbrel.config.lines import Place
from whimbrel.config.readers import (
    Cores,
    Limit,
    Rate,
    Time,
    TimeOrNone,
    choice,
    more_than_nothing,
    text,
    wrong,
)
from whimbrel.config.reading import Table
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.model.plan import Goal
from whimbrel.model.policy import LONGEST_DOWNTIME, Encryption, MovePolicy
from whimbrel.model.uri import parse_uri

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""Names of hosts and VMs: they become words of a command, and names of folders."""

PLAIN_NAME = (
    "must be letters, digits, '-', '_' and '.', at most 63, beginning with a letter or digit"
)

_POLICY = MovePolicy()

_SOME_PORTS = "49152-49215"
_LAST_PORT = 65535


def _uri(value: object) -> str:
    given = text(value, '"qemu+ssh://root@10.0.0.1"')
    try:
        parse_uri(given)
    except ConfigError as error:
        raise wrong(error.what.removesuffix("."), error.hint) from None
    return given


def _address(value: object) -> str:
    given = text(value, '"10.0.1.1"')
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        hint = "Migrations connect to addresses, never to names: it must be the intended NIC."
        raise wrong(f'"{given}" is no IP address', hint) from None


def absolute(value: object) -> str:
    """Read a path on a host, which has no working folder."""
    given = text(value, '"/run/whimbrel"')
    plain = PurePosixPath(given)
    if not plain.is_absolute() or ".." in plain.parts:
        raise wrong(f'"{given}" is no whole path', 'Begin it with "/", and leave ".." out.')
    return str(plain)


def _ports(value: object) -> str:
    """Read a range of TCP ports, the first and the last."""
    given = text(value, f'"{_SOME_PORTS}"')
    found = re.fullmatch(r"(\d{1,5}) ?- ?(\d{1,5})", given)
    first, last = (int(each) for each in found.groups()) if found else (0, 0)
    if not 1 <= first <= last <= _LAST_PORT:
        raise wrong(f'"{given}" is no range of TCP ports', f'Write it as "{_SOME_PORTS}".')
    if first == last:
        raise wrong("must be two ports at least", "One is for memory, one for disks.")
    return f"{first}-{last}"


def _certificate_name(value: object) -> str:
    given = text(value, '"b.example.org"')
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", given):
        raise wrong(f'"{given}" is no name of a host', 'Write it as "b.example.org".')
    return given


def _key_file(value: object) -> Path:
    given = text(value, '"~/.ssh/id_ed25519"')
    if "PRIVATE KEY" in given:
        raise wrong("must be the path of a key's file, not the key", "Keep keys in ~/.ssh.")
    return Path(given)


def _peer(value: object) -> str:
    given = text(value, '"qemu+tls://b.example.org/system"')
    try:
        parts = urlsplit(given)
        whole = parts.scheme.startswith("qemu+") and parts.hostname and parts.path
        secret = parts.password is not None
    except ValueError:
        whole, secret = None, False
    if not whole or secret:
        hint = 'As virsh -c takes it on another host: "qemu+tls://b.example.org/system".'
        raise wrong("is no URI under which other hosts' libvirt reaches this one", hint)
    return given


def _within_qemu(value: float) -> float:
    if value > LONGEST_DOWNTIME:
        raise wrong(f"must be at most {LONGEST_DOWNTIME:g} s", "QEMU allows no more.")
    return value


_Positive = AfterValidator(more_than_nothing)
_Path = Annotated[str, BeforeValidator(absolute)]
_File = Annotated[Path | None, BeforeValidator(_key_file)]


class LinkKeys(Table):
    """[[hosts.NAME.links]]."""

    address: Annotated[str, BeforeValidator(_address)]
    rate: Annotated[Rate | None, _Positive] = None
    trusted: bool = False


class HostKeys(Table):
    """[hosts.NAME]."""

    uri: Annotated[str, BeforeValidator(_uri)]
    folder: _Path = Host("", "").folder
    identity: _File = None
    known_hosts: _File = None
    sockets: list[_Path] = Field(default=[])
    peer: Annotated[str | None, BeforeValidator(_peer)] = None
    channel_folder: _Path | None = None
    certificates: _Path | None = None
    certificate_name: Annotated[str, BeforeValidator(_certificate_name)] = ""
    ports: Annotated[str | None, BeforeValidator(_ports)] = None
    bandwidth_limit: Annotated[Limit, _Positive] = None
    cpu_budget: Annotated[Cores, _Positive] = None
    links: list[LinkKeys] = Field(default=[])


class PolicyKeys(Table):
    """[policy]."""

    max_downtime: Annotated[Time, _Positive, AfterValidator(_within_qemu)] = _POLICY.max_downtime
    deadline: Annotated[TimeOrNone, _Positive] = _POLICY.deadline
    postcopy: bool = _POLICY.postcopy
    goal: Annotated[Goal, choice(Goal)] = _POLICY.goal
    encryption: Annotated[Encryption, choice(Encryption)] = _POLICY.encryption


class FileKeys(Table):
    """The whole file."""

    hosts: dict[str, HostKeys] = Field(default={})
    policy: PolicyKeys = PolicyKeys()


def problems(keys: FileKeys) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong between tables that are right each for itself."""
    for name, host in keys.hosts.items():
        if not NAME.fullmatch(name):
            yield ("hosts", name), f"the name {PLAIN_NAME}"
        place = parse_uri(host.uri)
        if place.local or not place.shell:
            other = "this one is local" if place.local else "only libvirt leads to this one"
            for key in ("identity", "known_hosts"):
                if getattr(host, key) is not None:
                    yield ("hosts", name, key), f"is for hosts that SSH reaches; {other}"
        yield from _only_for_its_kind(name, host)
        twice = {socket for socket in host.sockets if host.sockets.count(socket) > 1}
        for socket in sorted(twice):
            yield ("hosts", name, "sockets"), f'"{socket}" is named twice'
    yield from _same_names(keys)
    yield from _same_hosts(keys)
    yield from _same_addresses(keys)


def _only_for_its_kind(name: str, host: HostKeys) -> Iterator[tuple[Place, str]]:
    if parse_uri(host.uri).libvirt:
        for key in ("sockets", "certificates", "ports"):
            if getattr(host, key):
                yield ("hosts", name, key), "is for plain QEMU; libvirt runs this host"
        return
    for key in ("peer", "channel_folder"):
        if getattr(host, key) is not None:
            yield ("hosts", name, key), "is for hosts that libvirt runs; this one is plain QEMU"
    if host.certificate_name and host.certificates is None:
        place = ("hosts", name, "certificate_name")
        yield place, "is for hosts whose folder of certificates is named (certificates)"


def _same_names(keys: FileKeys) -> Iterator[tuple[Place, str]]:
    seen: dict[str, str] = {}
    for name in keys.hosts:
        first = seen.setdefault(name.lower(), name)
        if first != name:
            yield ("hosts", name), f'differs from "{first}" in capital letters only'


def _same_hosts(keys: FileKeys) -> Iterator[tuple[Place, str]]:
    seen: dict[tuple[object, str], str] = {}
    for name, host in keys.hosts.items():
        first = seen.setdefault((parse_uri(host.uri), host.folder), name)
        if first != name:
            yield (
                ("hosts", name, "uri"),
                f'is the host that "{first}" names, with the same folder: nothing could move',
            )


def _same_addresses(keys: FileKeys) -> Iterator[tuple[Place, str]]:
    """Two machines cannot share an address; two folders of one machine can."""
    seen: dict[str, tuple[str, object]] = {}
    for name, host in keys.hosts.items():
        for number, link in enumerate(host.links):
            here = (name, parse_uri(host.uri))
            first = seen.setdefault(link.address, here)
            place = ("hosts", name, "links", number, "address")
            if first[1] != here[1]:
                yield place, f'{link.address} is an address of "{first[0]}" already'
            if [other.address for other in host.links[:number]].count(link.address):
                yield place, f"{link.address} is named twice"
