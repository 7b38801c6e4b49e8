"""Who owns a thing of the lab: the whimbrel process whose pid and start time its name carries.

A pid alone is given away again after its process ends; pid and start time together are not,
so that a name tells for ever whether its owner still lives.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from whimbrel.lab.proc import parse_stat


@dataclass(frozen=True, order=True)
class Owner:
    """A whimbrel process.

    Attributes:
        pid: Its process id.
        started: Its start in clock ticks since boot (/proc/PID/stat, field 22).
    """

    pid: int
    started: int

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has this pid now; raises `OSError` when there is none."""
        return cls(pid, parse_stat(Path(f"/proc/{pid}/stat").read_text()).started)

    @property
    def tag(self) -> str:
        """The part of a name that says who owns it: "1234-567890"."""
        return f"{self.pid}-{self.started}"

    @property
    def alive(self) -> bool:
        """Whether this very process runs now (a zombie does not)."""
        try:
            stat = parse_stat(Path(f"/proc/{self.pid}/stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.started == self.started and stat.state not in "ZX"

    def namespace(self, host: str) -> str:
        """Return the name of the network namespace of one of its hosts ("a" or "b")."""
        return f"whimbrel-{self.tag}-{host}"

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return f"lab-{self.tag}"


_NAMESPACE = re.compile(r"whimbrel-(\d+)-(\d+)-[ab]")
_FOLDER = re.compile(r"lab-(\d+)-(\d+)")


def owner_of_namespace(name: str) -> Owner | None:
    """Return who owns a network namespace of this name; None when it is not ours."""
    return _owner(_NAMESPACE.fullmatch(name))


def owner_of_folder(name: str) -> Owner | None:
    """Return who owns a run folder of this name; None when it is not ours."""
    return _owner(_FOLDER.fullmatch(name))


def _owner(match: re.Match[str] | None) -> Owner | None:
    return Owner(int(match[1]), int(match[2])) if match else None
