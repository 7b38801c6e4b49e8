"""What a killed lab left behind: found by its names, removed when its owner is dead.

Only what carries our prefix is looked at, and only what belongs to no living process is
touched: the name holds the owner's pid and start time, so a pid given away again does not deceive.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from whimbrel.lab.folders import bases, remove_folder
from whimbrel.lab.namespaces import delete_namespace, namespace_names
from whimbrel.lab.owner import Owner, owner_of_folder, owner_of_namespace


@dataclass(frozen=True)
class Leftovers:
    """What dead labs left.

    Attributes:
        namespaces: Names of network namespaces.
        folders: Run folders.
    """

    namespaces: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self.namespaces or self.folders)


def decide(
    namespaces: Iterable[str], folders: Iterable[Path], alive: Callable[[Owner], bool]
) -> Leftovers:
    """Return which of these are leftovers: ours by name, and their owner is not alive."""

    def dead(owner: Owner | None) -> bool:
        return owner is not None and not alive(owner)

    return Leftovers(
        tuple(name for name in namespaces if dead(owner_of_namespace(name))),
        tuple(folder for folder in folders if dead(owner_of_folder(folder.name))),
    )


def find_leftovers() -> Leftovers:
    """Return what dead labs of this user left on this machine; changes nothing."""
    return decide(namespace_names(), _folders(), lambda owner: owner.alive)


def remove_leftovers(leftovers: Leftovers) -> list[str]:
    """Remove what `find_leftovers` found; return one sentence for each thing removed.

    Raises:
        LabError: This user may not, or a process does not end.
    """
    said = []
    for name in leftovers.namespaces:
        killed = delete_namespace(name)
        said += [f"Killed process {pid}, which lived in {name}." for pid in killed]
        said.append(f"Removed the network namespace {name} and its links.")
    for folder in leftovers.folders:
        remove_folder(folder)
        said.append(f"Removed the run folder {folder}.")
    return said


def _folders() -> tuple[Path, ...]:
    """Return everything that lies where run folders lie, if the place is this user's."""
    user = os.getuid()
    found: list[Path] = []
    for base in bases(os.environ, user):
        if base.is_dir() and not base.is_symlink() and base.stat().st_uid == user:
            found.extend(sorted(base.iterdir()))
    return tuple(found)
