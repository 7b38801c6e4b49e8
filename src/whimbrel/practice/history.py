"""What journals tell of past and present moves."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whimbrel.errors import HostError
from whimbrel.model.holder import Holder
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Entry, Step, decision_of, event_of
from whimbrel.model.migration import Decision, Event, Side
from whimbrel.model.plain import shaped
from whimbrel.practice.journal import Tail, journal_folder

_BETWEEN = frozenset({Step.EVENT, Step.DECISION})


@dataclass(frozen=True)
class History:
    """One move, as its journal tells it.

    Attributes:
        path: The journal.
        move: The move's identity.
        vm: The VM's name.
        source: The host it left, as the config names it.
        destination: The host it was to go to.
        holder: Who began it.
        entries: Everything, in order.
    """

    path: Path
    move: str
    vm: str
    source: str
    destination: str
    holder: Holder
    entries: tuple[Entry, ...]

    @property
    def last(self) -> Step | None:
        """The last step that was announced."""
        steps = [entry.step for entry in self.entries if entry.step not in _BETWEEN]
        return steps[-1] if steps else None

    @property
    def closed(self) -> bool:
        """Whether it has ended, and nothing of it is left over.

        It is known where the guest runs, then, or that it runs nowhere.
        """
        over = any(entry.fields.get("over") for entry in self._of(Step.CLOSED)[-1:])
        left = any(entry.fields.get("left") for entry in self._of(Step.CLOSED)[-1:])
        return self.last is Step.CLOSED and not left and (over or self.runs_on is not None)

    @property
    def runs_on(self) -> Side | None:
        """Where the guest runs, as far as the last word tells."""
        words = [entry.fields.get("runs_on") for entry in self._of(Step.CLOSED)]
        return Side(words[-1]) if words and words[-1] else None

    @property
    def ending(self) -> str:
        """How it ended, in a word and its reason; empty while it goes on."""
        for entry in reversed(self._of(Step.CLOSED)):
            word, reason = entry.fields.get("ending", ""), entry.fields.get("reason", "")
            return f"{word}: {reason}" if reason else str(word)
        return ""

    @property
    def address(self) -> MigrationAddress | None:
        """Where the destination listened; without its key, which no journal keeps."""
        for entry in reversed(self._of(Step.PREPARED)):
            return MigrationAddress(str(entry.fields["host"]), int(entry.fields["port"]))
        return None

    @property
    def began(self) -> float:
        """When, in seconds since 1970-01-01 UTC."""
        return self.holder.since

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, observations thinned."""
        return tuple(event_of(entry) for entry in self._of(Step.EVENT))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided."""
        return tuple(decision_of(entry) for entry in self._of(Step.DECISION))

    @property
    def conducted(self) -> bool:
        """Whether a whimbrel writes it now."""
        return is_written(self.path)

    def _of(self, step: Step) -> list[Entry]:
        return [entry for entry in self.entries if entry.step is step]


def history(path: Path) -> History:
    """Read one journal, also while it is written.

    Raises:
        HostError: It cannot be read, or is no journal of this version.
    """
    tail = Tail(path)
    entries = tail.new()
    head: dict[str, Any] = tail.head
    try:
        return History(
            path=path,
            move=str(head["move"]),
            vm=str(head["vm"]),
            source=str(head["source"]),
            destination=str(head["destination"]),
            holder=shaped(Holder, head["holder"]),
            entries=entries,
        )
    except (KeyError, ValueError) as error:
        raise HostError(f"{path} is no journal that this whimbrel can read.") from error


def histories(vm: str | None = None, folder: Path | None = None) -> tuple[History, ...]:
    """Return the moves in a folder, the latest first; what cannot be read is left out."""
    found = []
    for path in (folder or journal_folder()).glob("*.jsonl"):
        try:
            found.append(history(path))
        except HostError:
            continue  # of another version, or begun at this very moment
    wanted = [each for each in found if vm is None or each.vm == vm]
    return tuple(sorted(wanted, key=lambda each: each.began, reverse=True))


def unfinished(vm: str | None = None, folder: Path | None = None) -> tuple[History, ...]:
    """Return the moves that have not ended and that nobody conducts, the latest first.

    Of each VM only the latest counts: what came before it was settled when it began.
    """
    latest: dict[str, History] = {}
    for each in histories(vm, folder):
        latest.setdefault(each.vm, each)
    return tuple(each for each in latest.values() if not each.closed and not each.conducted)


def is_written(path: Path) -> bool:
    """Tell whether a living process writes this journal."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
