import asyncio
from collections.abc import Iterator

import pytest

from unit.practice.fakes import VM, FakeMachine, FakeMigration, FakeReception
from whimbrel.errors import HostUnreachable, MachineEnded, Unsupported
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.migration import Observation, Phase, PhaseChange
from whimbrel.practice import mend
from whimbrel.practice.mend import STALLED, Mender
from whimbrel.practice.record import Record, Unwritten


class Link(FakeMigration):
    """A migration whose link is broken for so many attempts."""

    broken = 0
    taken_up = False

    async def resume(self, address: MigrationAddress) -> None:
        await super().resume(address)
        if len(self.resumed) <= self.broken:
            raise HostUnreachable("no route")
        self.taken_up = True


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mend, "RETRY", 0.0)
        yield


def scene(patience: float = 600.0) -> tuple[Mender, Link, FakeReception]:
    migration = Link(FakeMachine(VM), [])
    reception = FakeReception(FakeMachine(VM))
    return Mender(migration, reception, Record(Unwritten()), patience), migration, reception


async def settled() -> None:
    """Let the tasks that were begun run as far as they can."""
    for _ in range(50):
        await asyncio.sleep(0)


def sent(at: float, transferred: int) -> Observation:
    return Observation(at, Phase.POSTCOPY, transferred)


class Gone(FakeReception):
    """A destination whose process has ended."""

    async def listen_again(self) -> MigrationAddress:
        self.listens += 1
        raise MachineEnded("it was killed")


async def test_a_post_copy_whose_destination_has_ended_is_given_up_at_once() -> None:
    reception = Gone(FakeMachine(VM))
    mender = Mender(Link(FakeMachine(VM), []), reception, Record(Unwritten()))
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 1.0, "the connection broke"))
    await settled()
    assert "it was killed" in mender.gave_up
    assert reception.listens == 1


class Unable(FakeReception):
    """A destination whose hypervisor cannot do it."""

    async def listen_again(self) -> MigrationAddress:
        self.listens += 1
        raise Unsupported("libvirt 11.3 dies of it", "Have a newer one.")


async def test_a_post_copy_that_nobody_can_take_up_is_given_up_at_once_with_what_helps() -> None:
    reception = Unable(FakeMachine(VM))
    mender = Mender(Link(FakeMachine(VM), []), reception, Record(Unwritten()))
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 1.0, "the connection broke"))
    await settled()
    assert "dies of it Have a newer one." in mender.gave_up
    assert reception.listens == 1


async def test_a_post_copy_that_goes_silent_is_paused() -> None:
    mender, migration, _ = scene()
    mender.hear(PhaseChange(Phase.POSTCOPY, 0.0))
    mender.hear(sent(1.0, 1000))
    mender.hear(sent(STALLED, 1000))
    await settled()
    assert migration.pauses == 0
    mender.hear(sent(1.0 + STALLED + 0.1, 1000))
    await settled()
    assert migration.pauses == 1
    await mender.close()


async def test_a_post_copy_that_sends_slowly_is_left_alone() -> None:
    mender, migration, _ = scene()
    mender.hear(PhaseChange(Phase.POSTCOPY, 0.0))
    for second in range(100):
        mender.hear(sent(float(second), second))
    await settled()
    assert migration.pauses == 0
    await mender.close()


async def test_a_pre_copy_is_never_paused() -> None:
    mender, migration, _ = scene()
    mender.hear(PhaseChange(Phase.PRECOPY, 0.0))
    mender.hear(Observation(1.0, Phase.PRECOPY, 1))
    mender.hear(Observation(1.0 + 2 * STALLED, Phase.PRECOPY, 1))
    await settled()
    assert migration.pauses == 0
    await mender.close()


async def test_a_paused_post_copy_is_taken_up_as_soon_as_the_link_is_back() -> None:
    mender, migration, reception = scene()
    migration.broken = 3
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 0.0))
    await settled()
    assert migration.taken_up
    assert reception.listens == 4
    assert migration.resumed == [reception.address] * 4
    assert not mender.gave_up
    await mender.close()


async def test_patience_ends_the_attempts_and_says_why() -> None:
    mender, migration, _ = scene(patience=30.0)
    migration.broken = 10**9
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 100.0))
    await settled()
    mender.hear(Observation(129.0, Phase.POSTCOPY_PAUSED))
    assert not mender.gave_up
    mender.hear(Observation(131.0, Phase.POSTCOPY_PAUSED))
    assert "no route" in mender.gave_up
    assert "30" in mender.gave_up
    await mender.close()
    tried = len(migration.resumed)
    await settled()
    assert len(migration.resumed) == tried


async def test_a_destination_that_does_not_answer_is_asked_again() -> None:
    mender, migration, reception = scene()
    reception.deaf = True
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 0.0))
    await settled()
    assert migration.resumed == []
    reception.deaf = False
    await settled()
    assert migration.taken_up
    await mender.close()


async def test_a_post_copy_that_is_left_paused_waits_to_be_taken_up_by_others() -> None:
    mender, migration, reception = scene()
    migration.broken = 1000
    mender.hear(PhaseChange(Phase.POSTCOPY_PAUSED, 1.0))
    await settled()
    tried = len(migration.resumed)
    reception.listens = 0
    await mender.leave()
    await settled()
    assert reception.listens == 1
    assert len(migration.resumed) == tried


async def test_a_destination_that_cannot_be_told_is_left_as_it_is() -> None:
    mender, _, reception = scene()
    reception.deaf = True
    await mender.leave()
