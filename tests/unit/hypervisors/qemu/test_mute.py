"""A QEMU that waits for its guest's memory is told from one that merely hangs."""

import pytest

from whimbrel.errors import HostUnreachable
from whimbrel.hypervisors.qemu.mute import MuteMonitor, waits_for_memory


@pytest.mark.parametrize(
    ("threads", "waits"),
    [
        (["qemu-system-x86", "CPU 0/TCG", "mig/dst/fault", "mig/dst/listen"], True),
        (["qemu-system-x86", "CPU 0/KVM", "fault-default", "postcopy/listen"], True),
        (["qemu-system-x86", "CPU 0/TCG", "mig/dst/recv_0", "IO mon_iothread"], False),
        ([], False),
    ],
)
def test_the_threads_of_a_post_copy_tell(threads: list[str], *, waits: bool) -> None:
    assert waits_for_memory(threads) is waits


async def test_it_is_known_how_it_stands_and_nothing_else_can_be_done() -> None:
    monitor = MuteMonitor("web on b")
    assert (await monitor.execute("query-status"))["running"] is False
    assert (await monitor.execute("query-migrate"))["status"] == "postcopy-paused"
    with pytest.raises(HostUnreachable, match="web on b: QEMU waits for memory"):
        await monitor.execute("cont")
    assert await monitor.listen("RESUME").next(0.0) is None
    await monitor.close()
