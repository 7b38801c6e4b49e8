"""Private folders for the sockets and consoles of a lab run.

    /run/whimbrel-UID/lab-PID-START/      PID and START are the owner's, see `Owner`

Where /run is not ours to write: $XDG_RUNTIME_DIR, else the folder for temporary files.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE, S_ISDIR

from whimbrel.errors import LabError
from whimbrel.lab.owner import Owner

_PRIVATE = 0o700
_SOCKET_LENGTH = 107
"""Bytes in the path of a UNIX socket, without the closing zero (unix(7))."""
_NAME_LENGTH = 40
"""Bytes kept free for the names within a run folder."""


def bases(environment: Mapping[str, str], user: int) -> tuple[Path, ...]:
    """Return the folders that may hold the run folders of a user, the best first."""
    parents = ["/run", environment.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()]
    return tuple(Path(parent) / f"whimbrel-{user}" for parent in dict.fromkeys(parents) if parent)


@contextmanager
def run_folder() -> Iterator[Path]:
    """Hold a folder that only this user may enter; it is removed with all it holds.

    A socket in it with a name of up to 40 bytes stays within the length that UNIX allows.

    Raises:
        LabError: No place allows it, or this process holds one already.
    """
    folder = _base() / Owner.current().folder
    try:
        folder.mkdir(mode=_PRIVATE)
    except FileExistsError as error:
        raise LabError(f"{folder} exists: this process runs a lab already.") from error
    try:
        yield folder
    finally:
        remove_folder(folder)


def remove_folder(folder: Path) -> None:
    """Remove a run folder, and the folder that holds it when it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:
        return  # another run's folder is there


def _base() -> Path:
    """Return the first base that is private, short enough and writable; make it if needed."""
    refusals = []
    for base in bases(os.environ, os.getuid()):
        try:
            base.mkdir(mode=_PRIVATE, exist_ok=True)
            problem = _problem(base)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem is None:
            return base
        refusals.append(f"{base}: {problem}")
    raise LabError(
        f"There is no place for the lab's sockets ({'; '.join(refusals)}).",
        "Set XDG_RUNTIME_DIR to a short folder of your own.",
    )


def _problem(base: Path) -> str | None:
    """Return why a base cannot be trusted or used; None when it can."""
    found = base.lstat()
    if not S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != os.getuid() or S_IMODE(found.st_mode) & 0o077:
        return "others may write or read there"
    longest = len(bytes(base / Owner.current().folder)) + 1 + _NAME_LENGTH
    return "its path is too long for sockets" if longest > _SOCKET_LENGTH else None
