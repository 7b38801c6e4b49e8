"""One process watched through /proc: its memory, and its CPU time by the work of its threads.

The files stay open between readings. That is cheap, and an open file belongs to the process it
was opened for: a pid that is given away again reads as gone, never as the new process.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from whimbrel.errors import LabError
from whimbrel.lab.proc import parse_stat, parse_statm
from whimbrel.model.threads import ThreadClass, thread_class

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST = 1 << 16  # bytes, more than any of these files holds
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class CpuTimes:
    """CPU time that a process has used since its start, in seconds.

    Attributes:
        total: All of it, ended threads too (the kernel's own sum for the process).
        by_class: By the work of the threads. A thread that ended counts with what it had
            when it was last read, so the sum may stay below the total.
    """

    total: float
    by_class: Mapping[ThreadClass, float]


@dataclass(frozen=True)
class ProcessSample:
    """What a process held and had used at one moment.

    Attributes:
        resident: Bytes of memory in RAM, shared pages counted in full.
        cpu: CPU time since its start.
    """

    resident: int
    cpu: CpuTimes


class OpenFile:
    """A file of /proc that is read again and again."""

    def __init__(self, path: str, folder: int | None = None) -> None:
        """Open `path`, below the open folder if one is given; raises `OSError`."""
        self._number = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)

    def read(self) -> str:
        """Return what it holds now; `ProcessLookupError` when its process is gone."""
        return os.pread(self._number, _LONGEST, 0).decode(errors="replace")

    def close(self) -> None:
        """Close it."""
        os.close(self._number)


@dataclass
class _Thread:
    stat: OpenFile
    kind: ThreadClass = ThreadClass.OTHER
    cpu: float = 0.0

    def read(self) -> bool:
        """Read it again; tell whether it still runs."""
        try:
            stat = parse_stat(self.stat.read())
        except _GONE:
            return False
        self.kind, self.cpu = thread_class(stat.name), stat.cpu
        return True


class ProcessWatch:
    """A process that is read again and again; `close` it."""

    def __init__(self, pid: int) -> None:
        """Start to watch a process; raises `LabError` when there is none."""
        try:
            self._folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except _GONE as error:
            raise LabError(f"Process {pid} cannot be watched: it is gone.") from error
        self._tasks = -1
        self._files: list[OpenFile] = []
        self._threads: dict[str, _Thread] = {}
        self._ended = dict.fromkeys(ThreadClass, 0.0)
        with suppress(*_GONE):  # what ends this early reads as gone
            self._tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._folder)
            self._files = [OpenFile(name, self._folder) for name in ("stat", "statm")]

    def read(self) -> ProcessSample | None:
        """Return how the process stands now; None when it is gone."""
        try:
            self._read_threads()
            # the total comes last, so that it is never less than the sum of the threads
            stat, memory = (file.read() for file in self._files)
        except (*_GONE, ValueError):  # ValueError: it was gone before its files were open
            return None
        cpu = CpuTimes(parse_stat(stat).cpu, self._by_class())
        return ProcessSample(parse_statm(memory, _PAGE), cpu)

    def close(self) -> None:
        """Close every file."""
        for file in (*self._files, *(thread.stat for thread in self._threads.values())):
            file.close()
        for number in (self._tasks, self._folder):
            if number >= 0:
                os.close(number)
        self._files, self._threads = [], {}
        self._tasks = self._folder = -1

    def _read_threads(self) -> None:
        # whoever ended is dropped first: the kernel may have given its number to a new thread
        for number in [number for number, thread in self._threads.items() if not thread.read()]:
            ended = self._threads.pop(number)
            self._ended[ended.kind] += ended.cpu
            ended.stat.close()
        for number in set(os.listdir(self._tasks)) - self._threads.keys():  # noqa: PTH208 - by number
            with suppress(*_GONE):
                thread = _Thread(OpenFile(f"task/{number}/stat", self._folder))
                thread.read()
                self._threads[number] = thread

    def _by_class(self) -> dict[ThreadClass, float]:
        times = self._ended.copy()
        for thread in self._threads.values():
            times[thread.kind] += thread.cpu
        return times


def process_cpu(pid: int) -> CpuTimes:
    """Return the CPU time that a process has used so far.

    Raises:
        LabError: There is no such process.
    """
    watch = ProcessWatch(pid)
    try:
        sample = watch.read()
    finally:
        watch.close()
    if sample is None:
        raise LabError(f"Process {pid} cannot be read: it is gone.")
    return sample.cpu
