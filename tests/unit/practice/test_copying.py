import asyncio
from collections.abc import Sequence

import pytest

from unit.practice.storage_fakes import FakeMirror, Heard
from whimbrel.errors import HostError
from whimbrel.model.storage import Copying, CopyMode
from whimbrel.model.units import GIB, KIB, MIB
from whimbrel.practice import copying
from whimbrel.practice.copying import Copies, Sizes

READY = Copying(GIB, 0, ready=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "LOOK_EVERY", 0.0)


class Clock:
    """Half a second passes from one question to the next."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


async def nothing() -> int | None:
    return None


def copies(
    mirrors: Sequence[FakeMirror],
    heard: Heard,
    *,
    rate: float | None = None,
    patience: float = 30.0,
    sizes: Sizes = nothing,
) -> Copies:
    total = 100 * MIB * len(mirrors)
    return Copies(mirrors, total, sizes, heard, rate=rate, patience=patience, clock=Clock())


async def test_all_copies_must_be_in_step() -> None:
    quick = FakeMirror("vda", iter([READY]))
    slow = FakeMirror("vdb", iter([Copying(i * MIB, GIB - i * MIB) for i in range(5)] + [READY]))
    heard = Heard()
    await copies([quick, slow], heard).until_ready()
    assert [progress.ready for progress in heard.progress] == [False] * 5 + [True]
    assert heard.progress[-1].copied == heard.progress[-1].total
    assert heard.progress[-1].eta == 0


async def test_when_each_came_in_step_and_whose_writes_waited_is_kept() -> None:
    outrun = [Copying(1 + i * 10 * MIB, 500 * MIB) for i in range(30)]
    mirrors = [FakeMirror("vda", iter([READY])), FakeMirror("vdb", iter([*outrun, READY]))]
    followed = copies(mirrors, Heard())
    await followed.until_ready()
    assert followed.in_step["vda"] < followed.in_step["vdb"]
    assert followed.done == {"vda": GIB, "vdb": GIB}
    assert followed.waited == {"vdb"}


async def test_a_failed_copy_is_told_with_its_reason() -> None:
    failed = FakeMirror("vda", iter([Copying(1, 5, failure="No space left on device")]))
    with pytest.raises(HostError, match="vda failed: No space left on device"):
        await copies([failed], Heard()).until_ready()


async def test_a_copy_that_stands_still_is_told_but_one_without_a_byte_left_is_not() -> None:
    calm = FakeMirror("vda", iter([READY] * 10))
    stuck = FakeMirror("vdb", iter([Copying(MIB, GIB)] * 100))
    with pytest.raises(HostError, match="vdb has stood still for"):
        await copies([calm, stuck], Heard(), patience=5.0).until_ready()


async def test_a_copy_that_waits_for_its_limit_after_a_burst_does_not_stand_still() -> None:
    burst = [Copying(16 * MIB, 16 * MIB)] * 80
    waiting = FakeMirror("vda", iter([*burst, READY]))
    await copies([waiting], Heard(), rate=256 * KIB).until_ready()
    with pytest.raises(HostError, match="stood still"):
        await copies([FakeMirror("vda", iter(burst))], Heard()).until_ready()


async def test_a_guest_that_outruns_its_copy_has_its_writes_wait_once() -> None:
    outrun = [Copying(1 + i * 10 * MIB, 500 * MIB) for i in range(30)]
    mirror, heard = FakeMirror("vda", iter([*outrun, READY])), Heard()
    await copies([mirror], heard).until_ready()
    assert mirror.mode is CopyMode.WRITE_BLOCKING
    assert len(heard.waits) == 1
    assert "never be in step" in heard.waits[0]


async def test_copies_in_step_leave_their_share_of_the_limit_to_the_others() -> None:
    quick = FakeMirror("vda", iter([Copying(0, GIB), READY]))
    slow = FakeMirror("vdb", iter([Copying(i, GIB) for i in range(3)] + [READY]))
    await copies([quick, slow], Heard(), rate=90.0).until_ready()
    assert slow.limits[0] == pytest.approx(80)
    assert quick.limits[0] == pytest.approx(10)
    assert slow.limits[-1] == quick.limits[-1] == pytest.approx(45)


async def test_progress_is_what_arrived_since_the_beginning() -> None:
    taken = iter([5 * MIB, 30 * MIB, 55 * MIB, 80 * MIB])

    async def sizes() -> int | None:
        return next(taken)

    script = [Copying(i, GIB) for i in range(7)] + [READY]
    heard = Heard()
    await copies([FakeMirror("vda", iter(script))], heard, sizes=sizes).until_ready()
    assert heard.progress[0].copied == 0
    assert heard.progress[-2].copied == 75 * MIB
    assert heard.progress[-2].rate > 0
    assert heard.progress[-2].eta is not None


async def test_what_is_let_go_of_is_let_go_of_everywhere_before_an_error_is_told() -> None:
    bad, good = FakeMirror("vda", iter([])), FakeMirror("vdb", iter([]))
    bad.fails = "finish"
    with pytest.raises(HostError, match="vda cannot finish"):
        await copies([bad, good], Heard()).finish()
    assert good.done == ["finish"]


async def test_looking_on_goes_on_until_cancelled_and_hears_of_a_failure() -> None:
    looking = asyncio.create_task(copies([FakeMirror("vda", iter([READY]))], Heard()).keep())
    await asyncio.sleep(0)
    assert not looking.done()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    dies = FakeMirror("vda", iter([READY, Copying(1, 1, failure="gone")]))
    with pytest.raises(HostError, match="gone"):
        await copies([dies], Heard()).keep()
