"""What holds in the end: hosts and policy, and for every value where it comes from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from whimbrel.config.lines import Place
from whimbrel.config.readers import NONE, nearest
from whimbrel.config.reading import Source, key_text
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.model.policy import MovePolicy
from whimbrel.model.units import format_link, format_time

DEFAULT = "default"
"""The origin of what stands in no file."""

_FORMATS: Mapping[str, Callable[[float], str]] = {
    "bandwidth_limit": format_link,
    "rate": format_link,
    "max_downtime": format_time,
    "deadline": format_time,
    "cpu_budget": "{:g}".format,
}


@dataclass(frozen=True)
class Setting:
    """One value.

    Attributes:
        key: As in the file: "hosts.a.links[0].rate".
        value: Plain data in whimbrel's units: bytes, seconds, bytes per second; None: none.
        text: The same for people.
        origin: File and line, or "default".
    """

    key: str
    value: Any
    text: str
    origin: str


@dataclass(frozen=True)
class Config:
    """What `whimbrel.toml` says.

    Attributes:
        path: The file; None: there was none, and all is default.
        hosts: By name, in the file's order.
        policy: What holds for every move unless its command says otherwise.
        settings: Every value with its origin, in the file's order.
    """

    path: Path | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)
    policy: MovePolicy = MovePolicy()
    settings: tuple[Setting, ...] = ()

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each value comes from, by its key."""
        return {setting.key: setting.origin for setting in self.settings}

    def host(self, name: str) -> Host:
        """Return a host by its name; `ConfigError` with the nearest name where there is none."""
        if name in self.hosts:
            return self.hosts[name]
        if not self.hosts:
            raise ConfigError(f'There is no host "{name}": no host is configured.', HOW_TO_NAME)
        where = f" in {self.path}" if self.path else ""
        raise ConfigError(f'There is no host "{name}"{where}.', nearest(name, self.hosts))


HOW_TO_NAME = """\
Name your hosts in whimbrel.toml (docs/config.md):
    [hosts.a]
    uri = "qemu:///local"
    [hosts.b]
    uri = "qemu+ssh://root@10.0.0.2\""""
"""What to do where no host is configured."""


def settings_of(keys: BaseModel, given: object, source: Source) -> tuple[Setting, ...]:
    """Return every value of a file's tables.

    Args:
        keys: The tables as they were read.
        given: The same as it stood in the file.
        source: Where that is.
    """
    return tuple(_settings(keys, given, source, ()))


def _settings(value: object, given: object, source: Source, place: Place) -> Iterator[Setting]:
    for part, below in _parts(value):
        inside = _given(given, part)
        yield from _settings(below, inside, source, (*place, part))
    if not _parts(value) and place:
        yield Setting(
            key=key_text(place),
            value=_plain(value),
            text=_text(str(place[-1]), value),
            origin=DEFAULT if given is None else source.at(place),
        )


def _parts(value: object) -> list[tuple[str | int, object]]:
    match value:
        case BaseModel():
            return list(value)
        case dict():
            return list(value.items())
        case [BaseModel(), *_]:
            return list(enumerate(value))
    return []


def _given(content: object, part: str | int) -> object:
    if isinstance(content, dict):
        return content.get(part)
    if isinstance(content, list) and isinstance(part, int):
        return content[part]
    return None


def _plain(value: object) -> object:
    match value:
        case StrEnum():
            return value.value
        case Path():
            return str(value)
    return value


def _text(key: str, value: object) -> str:
    match value:
        case None:
            return NONE
        case bool():
            return "true" if value else "false"
        case float() | int() if key in _FORMATS:
            return _FORMATS[key](value)
        case list():
            return ", ".join(map(str, value)) or NONE
        case dict():
            return NONE
    return str(value)
