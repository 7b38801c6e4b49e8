"""What is written down of a resident VM on its host (vm.json), read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.errors import ConfigError, ProtocolError
from whimbrel.model.inventory import Vm
from whimbrel.model.plain import shaped

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "whimbrel.vm/1"
"""What vm.json says it is."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class Resident:
    """What a host's files say of one VM; nobody has asked its QEMU.

    Attributes:
        vm: How it was built.
        place: Its folder on the host.
        role: "running", or "incoming": a destination whose guest has not arrived.
        pid: QEMU's process.
        start: That process's start time, in ticks since the host booted.
        began: When it was started, in seconds since 1970 by the host's clock.
        alive: Whether the process lives.
        words: The command line it was started with.
        sockets: QMP sockets of a VM that somebody else started; empty for whimbrel's own.
    """

    vm: Vm
    place: str
    role: str
    pid: int
    start: int
    began: float
    alive: bool
    words: tuple[str, ...]
    sockets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.vm.name


def resident_from(record: Mapping[str, Any]) -> Resident:
    """Read what the host says of one VM; `ProtocolError` where it cannot be read."""
    try:
        return Resident(
            vm=shaped(Vm, record["vm"]),
            place=record["place"],
            role=record["role"],
            pid=record["pid"],
            start=record["start"],
            began=record["began"],
            alive=record["alive"],
            words=tuple(record["words"]),
            sockets=tuple(record.get("sockets", ())),
        )
    except (KeyError, ValueError) as error:
        raise ProtocolError(
            f"{record.get('place')}/vm.json cannot be read: {error}.",
            "It was written by another version of whimbrel.",
        ) from error


def check_name(name: str) -> None:
    """Raise `ConfigError` for what is no VM's name: it becomes a folder and a word for QEMU."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" is no name for a VM.',
            "Use letters, digits and . _ - , a letter or a digit first.",
        )
