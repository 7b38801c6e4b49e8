"""A QEMU that waits for a page of its guest, and so takes no new client.

A destination whose post-copy is paused needs pages that have not come. As soon as its main loop
does, or holds its lock for a virtual CPU that does, it greets a new client and then answers it
nothing, not even what negotiation needs (docs/interop/qmp-spec). It can still be told from one
that merely hangs, by its threads, and be ended.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel.errors import HostUnreachable
from whimbrel.hypervisors.qemu.monitor import Events, Monitor

_ANSWERS = {
    "query-status": {"running": False, "status": "inmigrate"},
    "query-migrate": {"status": "postcopy-paused"},
    # It may listen already: whoever left it paused had told it to. The source will find out.
    "migrate-pause": {},
    "migrate-recover": {},
}


def waits_for_memory(threads: Sequence[str]) -> bool:
    """Tell by the names of a QEMU's threads whether it receives a guest by post-copy.

    These two live from its beginning until all pages have come: "mig/dst/fault" and
    "mig/dst/listen" by QEMU 10, "fault-default" and "postcopy/listen" before 9.
    """
    return any("fault" in name or name.endswith("/listen") for name in threads)


class MuteMonitor(Monitor):
    """Stands for the control connection that cannot be had."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,  # noqa: ARG002 - nothing is carried out
        *,
        urgent: bool = False,  # noqa: ARG002
    ) -> Any:
        """Say how it stands; see `Monitor.execute` for all else, which cannot be done."""
        if command in _ANSWERS:
            return _ANSWERS[command]
        raise HostUnreachable(
            f"{self._name}: QEMU waits for memory of its guest, and takes no new client until "
            "that has come."
        )

    def listen(self, *names: str) -> "MuteEvents":  # noqa: ARG002 - nothing is heard
        """Return a stream without an event."""
        return MuteEvents()

    async def close(self) -> None:
        """See `Monitor.close`; there is nothing to close."""


class MuteEvents(Events):
    """No event at all."""

    def __init__(self) -> None:
        """Hear nobody."""

    async def next(self, within: float) -> tuple[str, Mapping[str, Any]] | None:
        """Wait in vain."""
        await asyncio.sleep(max(0.0, within))
        return None

    def close(self) -> None:
        """See `Events.close`."""
