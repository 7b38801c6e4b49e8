"""The command as a person runs it, and what it may leave behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whimbrel.lab.folders import bases
from whimbrel.lab.namespaces import namespace_names
from whimbrel.lab.owner import Owner

WHIMBREL = Path(sys.executable).parent / "whimbrel"
PATIENCE = 540.0

TINY = ["--memory", "192 MiB", "--fill", "64 MiB", "--methods", "tcp", "--survey", "none"]


def whimbrel(*words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*before, str(WHIMBREL), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Hold one that runs; it is killed at the end if it still does."""
    process = subprocess.Popen(
        [str(WHIMBREL), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(state: Callable[[], bool], what: str) -> None:
    """Wait for a state of the outside world, which announces nothing."""
    deadline = time.monotonic() + PATIENCE
    while not state():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def left_of(owner: Owner) -> list[str]:
    """Name what a lab has made and not removed: namespaces, folders, processes."""
    names = [name for name in namespace_names() if owner.tag in name]
    folders = [
        str(base / owner.folder)
        for base in bases(os.environ, os.getuid())
        if (base / owner.folder).exists()
    ]
    return [*names, *folders, *(str(pid) for pid in machines_of(owner))]


def machines_of(owner: Owner) -> list[int]:
    """Return the QEMU processes of a lab, by its run folder in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].startswith(b"qemu") and any(owner.folder.encode() in w for w in words):
                found.append(int(entry.name))
    return found


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return the exit code and what was said."""
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said
