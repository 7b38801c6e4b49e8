"""Files of VMs on a host: what QEMU and the guest's console wrote, private files, new images."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

_READABLE = ("stderr", "console")


def machine_output(place: str, name: str = "stderr", count: int = 4000) -> str:
    """Return the last `count` bytes of what QEMU (or the guest's console) wrote, as text."""
    if name not in _READABLE:
        raise ValueError(f"{name} is none of {', '.join(_READABLE)}")
    try:
        with Path(place, name).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - count))
            return file.read(count).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def machine_file(place: str, name: str, content: bytes) -> str:
    """Write a file that only its owner reads, in the VM's folder; return its path."""
    path = _within(place, name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    # Made anew with its final mode: at no moment may another user open it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return str(path)


def machine_file_remove(place: str, name: str) -> None:
    """Remove a folder below the VM's, with all that is in it; harmless without one."""
    shutil.rmtree(_within(place, name), ignore_errors=True)


def machine_image(path: str, kind: str, size: int) -> bool:
    """Make a disk image of `size` bytes where there is none; tell whether that was so.

    What is there is never written to, whatever it is. `kind` is qemu-img's name of the format.
    """
    if os.path.lexists(path):
        return False
    unfinished = Path(f"{path}.whimbrel-{os.getpid()}-{time.monotonic_ns()}")
    words = ["qemu-img", "create", "-q", "-f", kind, str(unfinished), str(size)]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(said.replace(str(unfinished), path))
        unfinished.chmod(0o600)
        with contextlib.suppress(FileExistsError):  # somebody was quicker
            os.link(unfinished, path)
            return True
    finally:
        unfinished.unlink(missing_ok=True)
    return False


def probe_facts() -> dict[str, bool]:
    """Return what QEMU cannot tell of this host: an RDMA device, and MPTCP switched on."""
    devices, switch = Path("/sys/class/infiniband"), Path("/proc/sys/net/mptcp/enabled")
    mptcp = switch.exists() and switch.read_text().strip() == "1"
    return {"rdma": devices.is_dir() and any(devices.iterdir()), "mptcp": mptcp}


def machine_threads(pid: int) -> list[str]:
    """Return the names of a process's threads; none when it is gone."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        found.extend((task / "comm").read_text().strip() for task in tasks)
    return found


def _within(place: str, name: str) -> Path:
    path = Path(place, name)
    if path == Path(place) or Path(place) not in path.parents or ".." in path.parts:
        raise ValueError(f"{name} is not within {place}")
    return path


QUESTIONS = {
    "machine_output": machine_output,
    "machine_file": machine_file,
    "machine_file_remove": machine_file_remove,
    "machine_image": machine_image,
    "machine_threads": machine_threads,
    "probe_facts": probe_facts,
}
