"""Which `whimbrel.toml` counts, and what it says.

    --config FILE, or else   ./whimbrel.toml, or else   $XDG_CONFIG_HOME/whimbrel/whimbrel.toml

The first that is there counts alone; files are not mixed. One in the working folder counts only
when it is the user's own or root's: it says where whimbrel connects, and folders are shared.
"""

import os
from pathlib import Path

from whimbrel.config.keys import FileKeys, HostKeys, problems
from whimbrel.config.reading import Source, key_text, read_file, read_keys
from whimbrel.config.settled import Config, settings_of
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.model.policy import MovePolicy

FILE = "whimbrel.toml"


def places() -> tuple[Path, ...]:
    """Return where a file is looked for, the first before the second.

    A relative $XDG_CONFIG_HOME does not count (XDG Base Directory Specification 0.8).
    """
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    home = given if given.is_absolute() else Path.home() / ".config"
    return Path(FILE), home / "whimbrel" / FILE


def find() -> Path | None:
    """Return the file that counts; None where there is none. `ConfigError`: it is a stranger's."""
    for path in places():
        if path.is_file():
            _refuse_strangers(path)
            return path
    return None


def load(path: Path | None = None) -> Config:
    """Read a file, or the one that `find` finds; without any, all is default.

    Raises:
        ConfigError: It cannot be read or used; every mistake in it is told at once.
    """
    path = find() if path is None else path
    mapping, source = ({}, Source("")) if path is None else read_file(path)
    keys = read_keys(FileKeys, mapping, source)
    _check(keys, source)
    base = Path() if path is None else path.absolute().parent
    return Config(
        path=path,
        hosts={name: _host(name, host, base) for name, host in keys.hosts.items()},
        policy=MovePolicy(**dict(keys.policy)),
        settings=settings_of(keys, mapping, source),
    )


def _refuse_strangers(path: Path) -> None:
    owner = path.stat().st_uid
    if owner not in {0, os.geteuid()}:
        raise ConfigError(
            f"{path.absolute()} belongs to another user (uid {owner}), so it is not trusted.",
            f"If you do trust it: --config {path}",
        )


def _check(keys: FileKeys, source: Source) -> None:
    found = [f"{source.at(at)}: {key_text(at)}: {what}." for at, what in problems(keys)]
    if found:
        raise ConfigError("\n".join(found))


def _host(name: str, keys: HostKeys, base: Path) -> Host:
    return Host(
        name=name,
        uri=keys.uri,
        folder=keys.folder,
        links=tuple(MigrationLink(each.address, each.rate, each.trusted) for each in keys.links),
        bandwidth_limit=keys.bandwidth_limit,
        cpu_budget=keys.cpu_budget,
        sockets=tuple(keys.sockets),
        identity=_beside(keys.identity, base),
        known_hosts=_beside(keys.known_hosts, base),
        peer=keys.peer,
        channel_folder=keys.channel_folder,
        certificates=keys.certificates,
        certificate_name=keys.certificate_name,
        ports=_range(keys.ports),
    )


def _range(ports: str | None) -> tuple[int, int] | None:
    """Return a range of ports that keys.py has read."""
    if ports is None:
        return None
    first, _, last = ports.partition("-")
    return int(first), int(last)


def _beside(path: Path | None, base: Path) -> Path | None:
    """Return a path as its file means it: from the user's home, or from the file's folder."""
    return None if path is None else base / path.expanduser()
