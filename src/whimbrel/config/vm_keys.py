"""The tables of a VM's file, and how each of its values is written (docs/config.md)."""

import re
import uuid
from typing import Annotated

from pydantic import BeforeValidator, Field

from whimbrel.config.readers import Size, choice, text, wrong
from whimbrel.config.reading import Table
from whimbrel.model.inventory import Disk, Nic, Vm
from whimbrel.model.scenario import AcceleratorChoice

FORMATS = ("raw", "qcow2")
CACHES = ("none", "directsync", "writeback", "writethrough", "unsafe")
"""QEMU's cache modes (qemu-options: -drive cache=)."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FEATURES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
"""A model followed by its features."""


def _one_of(words: tuple[str, ...]) -> BeforeValidator:
    def read(value: object) -> str:
        given = text(value, f'"{words[0]}"')
        if given not in words:
            raise wrong(f'"{given}" is not known', f"Known are: {', '.join(words)}.")
        return given

    return BeforeValidator(read)


def _plain_word(example: str, known: re.Pattern[str] = _WORD) -> BeforeValidator:
    """Make a reader of a word for QEMU that can be no option of its own."""

    def read(value: object) -> str:
        given = text(value, example)
        if not known.fullmatch(given):
            raise wrong(f'"{given}" is no word that QEMU knows', f"Write it as {example}.")
        return given

    return BeforeValidator(read)


def _host_path(value: object) -> str:
    given = text(value, '"/var/lib/vms/web.qcow2"')
    if not given or given.startswith("~"):
        hint = 'It is a path on the host: begin it with "/", or let it count from this file.'
        raise wrong(f'"{given}" is no whole path', hint)
    return given


def _mac(value: object) -> str:
    given = text(value, '"52:54:00:12:34:56"').lower()
    if not _MAC.fullmatch(given):
        raise wrong(f'"{given}" is no MAC address', 'Write it as "52:54:00:12:34:56".')
    if int(given[:2], 16) & 1:
        raise wrong(f'"{given}" is an address of a group, not of one NIC')
    return given


def _uuid(value: object) -> str:
    given = text(value, '"6f5d…"')
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise wrong(f'"{given}" is no UUID', "Leave it out to get one.") from None


_HostPath = Annotated[str, BeforeValidator(_host_path)]


class DiskKeys(Table):
    """[[disks]]."""

    path: _HostPath
    name: str | None = None
    format: Annotated[str, _one_of(FORMATS)] = Disk("", "").format
    size: Size | None = None
    cache: Annotated[str, _one_of(CACHES)] = Disk("", "").cache
    read_only: bool = False


class NicKeys(Table):
    """[[nics]]."""

    name: str | None = None
    bridge: Annotated[str | None, _plain_word('"br0"')] = None
    mac: Annotated[str | None, BeforeValidator(_mac)] = None
    model: Annotated[str, _plain_word('"virtio-net-pci"')] = Nic("").model


class VmKeys(Table):
    """The whole file."""

    memory: Size
    name: str | None = None
    vcpus: int = 1
    machine: Annotated[str, _plain_word('"pc-q35-10.0"', _FEATURES)] = Vm("", 0).machine
    cpu: Annotated[str | None, _plain_word('"Skylake-Server-v4"', _FEATURES)] = None
    accelerator: Annotated[AcceleratorChoice, choice(AcceleratorChoice)] = AcceleratorChoice.AUTO
    kernel: _HostPath | None = None
    initrd: _HostPath | None = None
    append: str = ""
    firmware: _HostPath | None = None
    channels: list[Annotated[str, _plain_word('"org.example.agent"')]] = Field(default=[])
    free_page_hints: bool = False
    uuid: Annotated[str | None, BeforeValidator(_uuid)] = None
    disks: list[DiskKeys] = Field(default=[])
    nics: list[NicKeys] = Field(default=[])
