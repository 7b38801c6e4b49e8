"""A job's command as a process of its own: what breaks in one move hurts no other.

It writes to files, not to pipes: should the scheduler be killed, the move goes on undisturbed.
"""

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

from whimbrel.model.job import Job

Launcher = Callable[[Sequence[str]], list[str]]
"""Makes of a job's words the words of a process."""

KEPT = 4000
"""Bytes of the command's last words that are kept."""


def as_whimbrel(words: Sequence[str]) -> list[str]:
    """Return what runs this whimbrel, not whichever PATH leads to."""
    return [sys.executable, "-m", "whimbrel", *words]


@dataclass(frozen=True)
class CommandEnd:
    """How a command ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        message: Its last words.
    """

    code: int
    message: str


class Command:
    """A job's command on its way."""

    def __init__(self, process: Process, output: IO[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._output = output
        self._errors = errors

    @classmethod
    async def start(cls, job: Job, launcher: Launcher = as_whimbrel) -> "Command":
        """Start it; raises OSError where its folder is gone or the program is not there."""
        with ExitStack() as files:
            output, errors = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            process = await asyncio.create_subprocess_exec(
                *launcher(job.words),
                stdin=DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=job.folder,
                # Ctrl-C at the scheduler's terminal is the scheduler's to pass on.
                start_new_session=True,
            )
            files.pop_all()
        return cls(process, output, errors)

    async def ended(self) -> CommandEnd:
        """Return how it ended, once it has."""
        with self._output, self._errors:
            code = await self._process.wait()
            message = _tail(self._errors) or _tail(self._output)
        return CommandEnd(code, message)

    def interrupt(self) -> None:
        """Tell it what Ctrl-C tells: it calls its move back, or finishes it where it must."""
        # Its own `send_signal` would take the exit code of one that has just ended from asyncio.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGINT)


def _tail(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - KEPT))
    return file.read().decode(errors="replace").strip()
