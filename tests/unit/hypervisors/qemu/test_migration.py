"""A source whose QEMU hangs in a handshake is freed, whatever it has said of the move by then."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from whimbrel.hypervisors.qemu import migration as migration_module
from whimbrel.hypervisors.qemu.migration import Guard, QemuMigration
from whimbrel.model.migration import Phase, PhaseChange


class Hanging:
    """A monitor that answers nothing before the connection was cut."""

    def __init__(self) -> None:
        self.cut = asyncio.Event()

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, urgent: bool = False
    ) -> dict[str, Any]:
        await self.cut.wait()
        return {"status": "cancelled"}


class Told:
    """Events that came before."""

    def __init__(self, *statuses: str) -> None:
        self._statuses = list(statuses)

    async def next(self, within: float) -> tuple[str, dict[str, Any]] | None:
        return "MIGRATION", {"status": self._statuses.pop(0)}

    def close(self) -> None: ...


async def test_the_end_of_a_cancelled_move_is_told_by_a_qemu_that_hangs_in_a_handshake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migration_module, "HANDSHAKE_WITHIN", 0.01)
    monitor, ports = Hanging(), []

    async def cut(port: int) -> None:
        ports.append(port)
        monitor.cut.set()

    told: Any = Told("setup", "cancelling", "cancelled")
    held: Any = monitor
    migration = QemuMigration(held, told, 1 << 20, lambda: True, Guard(cut, port=7))
    seen = [each.phase async for each in migration.watch() if isinstance(each, PhaseChange)]
    assert seen[-1] is Phase.CANCELLED
    async with asyncio.timeout(10):
        ended = await migration.ended()
    assert ended.phase is Phase.CANCELLED
    assert ports == [7]
