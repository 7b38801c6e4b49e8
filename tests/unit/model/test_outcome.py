import pytest

from whimbrel.model.migration import Phase, PhaseChange, Side
from whimbrel.model.outcome import Ending, Outcome


def arrived(at: float, *phases: tuple[Phase, float], reported: float | None = None) -> Outcome:
    return Outcome(
        Ending.COMPLETED,
        "",
        Side.DESTINATION,
        arrival_time=at,
        downtime_reported=reported,
        phases=tuple(PhaseChange(phase, when) for phase, when in phases),
    )


def test_a_guest_stands_still_from_its_stop_to_its_arrival() -> None:
    done = arrived(10.3, (Phase.PRECOPY, 0.1), (Phase.SWITCHOVER, 10.0), (Phase.COMPLETED, 10.2))
    assert done.standstill == pytest.approx(0.3)


def test_a_switchover_that_was_taken_back_does_not_count() -> None:
    done = arrived(
        10.3,
        (Phase.PRECOPY, 0.1),
        (Phase.SWITCHOVER, 4.0),
        (Phase.PRECOPY, 4.1),
        (Phase.SWITCHOVER, 10.0),
        (Phase.COMPLETED, 10.2),
    )
    assert done.standstill == pytest.approx(0.3)


def test_what_post_copy_tells_only_afterwards_is_added() -> None:
    done = arrived(5.1, (Phase.PRECOPY, 0.1), (Phase.POSTCOPY, 5.0), reported=0.02)
    assert done.standstill == pytest.approx(0.12)


def test_a_guest_that_never_arrived_has_no_downtime() -> None:
    assert Outcome(Ending.CANCELLED, "", Side.SOURCE).standstill is None
