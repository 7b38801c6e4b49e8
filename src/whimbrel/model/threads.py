"""What the threads of a hypervisor work for, told by their names."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache


class ThreadClass(StrEnum):
    """What a thread of QEMU works for, told by its name (`-name debug-threads=on`)."""

    VCPU = "vcpu"
    MIGRATION = "migration"
    CHANNEL = "channel"
    IO = "io"
    MAIN = "main"
    OTHER = "other"


SENDING = (ThreadClass.MIGRATION, ThreadClass.CHANNEL)
"""Threads that do nothing but move the guest."""

RECEIVING = (*SENDING, ThreadClass.MAIN)
"""Those that receive a plain stream: the main thread does, which has nothing else to do yet."""

_CLASSES = (
    (ThreadClass.VCPU, re.compile(r"CPU \d+/.*")),
    # Channels are named mig/src/send_0 and mig/dst/recv_0 since QEMU 9.2, before that
    # multifdsend_0 and multifdrecv_0; the kernel cuts every name to 15 characters.
    (ThreadClass.CHANNEL, re.compile(r"(mig/(src/send|dst/recv)|multifd).*")),
    (ThreadClass.MIGRATION, re.compile(r"(mig/|live_mig|postcopy/|return path|fault-|bg_snap).*")),
    (ThreadClass.IO, re.compile(r"(IO |iou-|worker|pool-|thread-pool).*")),
    (ThreadClass.MAIN, re.compile(r"qemu-.*|kvm")),
)


@lru_cache(maxsize=1024)  # the same few names are asked for ten times a second
def thread_class(name: str) -> ThreadClass:
    """Return what a thread of this name works for; `OTHER` when the name is unknown."""
    return next((kind for kind, names in _CLASSES if names.fullmatch(name)), ThreadClass.OTHER)


def by_class(seconds: Mapping[str, float]) -> dict[ThreadClass, float] | None:
    """Return the CPU seconds of a hypervisor's threads by what they work for.

    Args:
        seconds: By name of thread.

    Returns:
        None where it does not name its threads: all are called like the first then.
    """
    found = dict.fromkeys(ThreadClass, 0.0)
    kinds = {name: thread_class(name) for name in seconds}
    for name, spent in seconds.items():
        found[kinds[name]] += spent
    return found if ThreadClass.VCPU in kinds.values() else None
