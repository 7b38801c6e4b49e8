"""Second attempts, on a simulated move whose guest never converges."""

from dataclasses import replace

from unit.practice.fakes import Silent
from unit.practice.test_guard import DEADLINE, VM, pair
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import Cancel, Side
from whimbrel.model.outcome import Ending
from whimbrel.model.plan import Certificate, Rung, Step
from whimbrel.practice.attempts import Attempt, attempts
from whimbrel.practice.move import Request

PLAIN = Tuning()
PULLED = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)


def rung(step: Step, tuning: Tuning, latest: float = 60.0) -> Rung:
    action = Cancel() if step is Step.ANEW else None
    return Rung(step, tuning, action, latest, 1.0, 100.0, 1.0, guaranteed=True, reason="")


LADDER = Certificate((rung(Step.PRECOPY, PLAIN, 0.0), rung(Step.ANEW, PULLED)), ())


async def tried(
    share: float, certificate: Certificate | None
) -> tuple[tuple[Attempt, ...], list[str]]:
    source, destination = pair(share)
    machine = await source.start(VM)
    request = Request(
        source,
        machine,
        destination,
        MigrationAddress("127.0.0.1"),
        PLAIN,
        DEADLINE,
        Policy(downtime=0.3),
        certificate=certificate,
    )
    heard: list[str] = []

    async def renewed(before: Request) -> Request:
        return replace(before, address=MigrationAddress("127.0.0.1"))

    return await attempts(request, Silent(), renewed=renewed, anew=heard.append), heard


async def test_a_move_that_completes_is_tried_once() -> None:
    done, heard = await tried(0.1, LADDER)
    assert [each.outcome.ending for each in done] == [Ending.COMPLETED]
    assert heard == []


async def test_a_move_that_is_given_up_begins_anew_as_its_ladder_says() -> None:
    done, heard = await tried(3.0, LADDER)
    assert [each.outcome.ending for each in done] == [Ending.CANCELLED, Ending.COMPLETED]
    assert done[0].outcome.runs_on is Side.SOURCE
    assert done[1].tuning == PULLED
    assert done[1].outcome.runs_on is Side.DESTINATION
    assert heard == [done[0].outcome.reason]


async def test_without_such_a_rung_it_stays_where_it_is() -> None:
    done, _ = await tried(3.0, None)
    assert [each.outcome.runs_on for each in done] == [Side.SOURCE]
