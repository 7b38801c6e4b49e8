"""Real shares: an iSCSI server (tgt) and an NFS server (nfs-ganesha), in a network of their own.

    async with shares(folder) as share:
        QemuHost("a", folder, share.enter)        whoever shall reach them runs in that network
        share.unit                                iscsi://…, one unit of 256 MiB
        share.file("root.raw")                    nfs://…/root.raw

    async with shares(folder, host_a) as share    the same on a host of the lab, for the others too

Both run in user space, need no kernel module, and end with the block.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from whimbrel.lab.hosts import LabHost
from whimbrel.model.units import MIB

UNIT = 256 * MIB
"""Bytes of the iSCSI unit."""

_NAME = "iqn.2026-01.test.whimbrel:store"
_PROGRAMS = ("tgtd", "tgtadm", "ganesha.nfsd", "rpcbind", "nsenter", "unshare")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

needs_shares = pytest.mark.skipif(
    os.getuid() != 0 or not all(shutil.which(each, path=_PATH) for each in _PROGRAMS),
    reason="shares need root, and tgt, nfs-ganesha-vfs, rpcbind and util-linux",
)

_SERVERS = """\
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mkdir /run/tgtd
rpcbind -f -w &
ganesha.nfsd -F -f "$1/ganesha.conf" -L "$1/ganesha.log" -p /run/ganesha.pid &
tgtd -f -C 0 --iscsi "portal=$2:3260" &
wait
"""

_GANESHA = """\
NFS_CORE_PARAM {{
    Protocols = 3;
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
EXPORT {{
    Export_Id = 1;
    Path = {path};
    Pseudo = /export;
    Access_Type = RW;
    Squash = No_Root_Squash;
    Protocols = 3;
    Transports = TCP;
    SecType = sys;
    FSAL {{ Name = VFS; }}
}}
"""


@dataclass(frozen=True)
class Share:
    """What is served.

    Attributes:
        pid: The process whose network it is.
        folder: What NFS serves, as this machine sees it.
        address: Where it is served.
    """

    pid: int
    folder: Path
    address: str = "127.0.0.1"

    @property
    def unit(self) -> str:
        """The iSCSI unit's address."""
        return f"iscsi://{self.address}/{_NAME}/1"

    def file(self, name: str) -> str:
        """Return the address of a file on the NFS share."""
        return f"nfs://{self.address}{self.folder}/{name}"

    def enter(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs `words` in the shares' network, with the same pid."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *words]

    def beside(self, words: Sequence[str]) -> list[str]:
        """Return the command that runs `words` among the servers, with their /run."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--", *words]


@asynccontextmanager
async def shares(folder: Path, lab: LabHost | None = None) -> AsyncIterator[Share]:
    """Serve, with what is served below `folder`; everything ends with the block.

    Args:
        folder: Theirs.
        lab: The host that serves; None: a network that nobody else is in.
    """
    address = "127.0.0.1" if lab is None else lab.addresses[0]
    export = folder / "export"
    export.mkdir()
    (folder / "ganesha.conf").write_text(_GANESHA.format(path=export))
    with (folder / "unit").open("xb") as unit:
        unit.truncate(UNIT)
    # Killed with this process, and its children with it: they have process ids of their own.
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _SERVERS, "sh"]
    within = ["unshare", "--net", "--"] if lab is None else lab.enter([])
    words = ["setpriv", "--pdeathsig", "KILL", *within, *alone, str(folder), address]
    with (folder / "servers.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *words, stdout=log, stderr=log, env={**os.environ, "PATH": _PATH}
        )
    try:
        share = Share(process.pid, export, address)
        await _serve_unit(share, folder / "unit")
        await _answers(share.enter(["qemu-img", "create", "-q", share.file("probe"), "1M"]))
        yield share
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _serve_unit(share: Share, unit: Path) -> None:
    administer = ["tgtadm", "-C", "0", "--lld", "iscsi"]
    disk = ["--mode", "target", "--tid", "1"]
    logical = ["--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(unit)]
    await _answers(share.beside([*administer, "--op", "new", *disk, "-T", _NAME]))
    await _answers(share.beside([*administer, "--op", "new", *logical]))
    await _answers(share.beside([*administer, "--op", "bind", *disk, "-I", "ALL"]))


async def _answers(words: Sequence[str]) -> None:
    """Run a command until its server answers; `TimeoutError` when it does not."""
    async with asyncio.timeout(20.0):
        for _ in range(1000):
            process = await asyncio.create_subprocess_exec(
                *words,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PATH": _PATH},
            )
            _, said = await process.communicate()
            if process.returncode == 0:
                return
            await asyncio.sleep(0.05)  # there is nothing to wait on but time
    raise AssertionError(said.decode(errors="replace"))
