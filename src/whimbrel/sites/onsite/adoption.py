"""VMs that were started by hand: which process listens at a QMP socket, and how it was started."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Any

_LONGEST_PATH = 107


def adoption_facts(path: str) -> dict[str, Any]:
    """Return the process behind a QMP socket: pid, start, words, folder (its working folder).

    The socket is touched for a moment and nothing is said.

    Raises:
        OSError: Nobody listens there, or the process cannot be looked at.
    """
    folder = os.open(str(Path(path).parent), os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as touch:
            touch.settimeout(5.0)
            name = path if len(path.encode()) <= _LONGEST_PATH else f"/proc/self/fd/{folder}/"
            touch.connect(name if name == path else name + Path(path).name)
            found = touch.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    finally:
        os.close(folder)
    pid = struct.unpack("3i", found)[0]
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return {
        "pid": pid,
        "start": int(fields[19]),
        "words": [word.decode(errors="surrogateescape") for word in words],
        "folder": str((process / "cwd").readlink()),
    }


QUESTIONS = {"adoption_facts": adoption_facts}
