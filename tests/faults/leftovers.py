"""What a move has left over, on both hosts and with its person; seen from outside."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

from faults.stage import Stage
from faults.underway import VM
from whimbrel.lab.namespaces import inhabitants
from whimbrel.practice.history import unfinished

SOON = 10.0
"""Seconds for what ends by itself with a connection: programs on hosts, and what they hold."""

_LISTENS = "0A"


async def left_over(stage: Stage, runs_on: str | None) -> list[str]:
    """Name all that is left over, where the guest runs on this host and nowhere else."""
    found: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            while found := _found(stage, runs_on):  # noqa: ASYNC110 - the kernel is asked
                await asyncio.sleep(0.1)
    return found + await _in_qemu(stage, runs_on)


def _found(stage: Stage, runs_on: str | None) -> list[str]:
    found = [f"open journal {each.path.name}" for each in unfinished(folder=stage.journals)]
    for host in "ab":
        folder = stage.folder(host)
        for name in ("moves", "claims", "images", "probes"):
            files = (path for path in (folder / name).glob("*") if path.name != "lock")
            found += [f"{name}/{path.name} on {host}" for path in files]
        homes = [path.name for path in (folder / "vms").glob("*")]
        if homes != ([VM] if host == runs_on else []):
            found.append(f"folders of VMs {homes} on {host}")
        found += [f"{each} on {host}" for each in _programs(stage, host, runs_on)]
    images = list(stage.there.glob("*.raw"))
    if images and not (stage.disks and runs_on == "b"):
        found.append(f"{images[0].name} at the destination")
    return found


def _programs(stage: Stage, host: str, runs_on: str | None) -> list[str]:
    far = stage.at.far.a if host == "a" else stage.at.far.b
    own = stage.pid(host) if host == runs_on else None
    found = []
    for pid in inhabitants(far.lab.namespace):
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if pid == own:
                if _listens(pid):
                    found.append("an open port of the guest's QEMU")
            elif not name.startswith("sshd"):
                found.append(f"process {name}")
    return found


def _listens(pid: int) -> bool:
    """Tell whether a process listens on TCP."""
    sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == _LISTENS and f"socket:[{words[9]}]" in sockets:
            return True
    return False


async def _in_qemu(stage: Stage, runs_on: str | None) -> list[str]:
    if runs_on is None:
        return []
    asked = ("query-block-exports", "query-block-jobs", "query-named-block-nodes")
    answers = await stage.ask(runs_on, *asked)
    if answers is None:
        return ["the guest's QEMU does not answer"]
    exports, jobs, nodes = answers
    ours = [each["node-name"] for each in nodes if each["node-name"].startswith("whimbrel-")]
    found = [f"export {each['id']}" for each in exports]
    found += [f"block job {each['device']}" for each in jobs]
    return found + [f"block node {name}" for name in ours]


def record_of(stage: Stage, host: str) -> dict[str, object]:
    """Return what vm.json says of the guest on a host."""
    text = (stage.folder(host) / "vms" / VM / "vm.json").read_text()
    found: dict[str, object] = json.loads(text)
    return found
