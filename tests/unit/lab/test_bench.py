import numpy as np

from unit.theory.guests import KVM, still_guest
from whimbrel.lab.bench import last_attempt, seen_before
from whimbrel.lab.forecast import Said
from whimbrel.model.method import Method, Postcopy, Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Observed, Run
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.theory.simulate import predict
from whimbrel.theory.situation import Earlier

SURVEY = still_guest()
PREDICTION = predict(SURVEY, Tuning(), KVM, generator=np.random.default_rng(1), draws=20)
SAID = Said(Tuning(), PREDICTION, 1.0, Surveyed(SURVEY, Depth.QUICK, 1.0, 0.1), 60.0)
PULL = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)


def run(ending: Ending, tuning: Tuning, seconds: float, source: str = "a") -> Run:
    seen = Observed(total_time=seconds, wire_bytes=round(seconds * 1e8))
    return Run(Method.AUTO, tuning, 1, ending, observed=seen, source=source)


def test_a_move_of_one_attempt_is_kept_as_it_was() -> None:
    kept = last_attempt(run(Ending.COMPLETED, Tuning(), 8.0), None, SAID, (10.0, 20.0))
    assert (kept.ending, kept.tuning, kept.observed.total_time) == (
        Ending.COMPLETED,
        Tuning(),
        8.0,
    )


def test_a_move_begun_anew_is_kept_as_one_completed_move() -> None:
    back = run(Ending.CANCELLED, Tuning(), 9.0)
    kept = last_attempt(back, run(Ending.COMPLETED, PULL, 8.0), SAID, (10.0, 40.0))
    assert kept.ending is Ending.COMPLETED
    assert kept.tuning == PULL
    assert (kept.observed.total_time, kept.observed.wire_bytes) == (8.0, 800_000_000)
    assert (kept.began, kept.ended) == (10.0, 40.0)
    assert kept.prediction == PREDICTION


def test_what_was_seen_of_a_guest_before_is_told_with_its_age() -> None:
    assert seen_before([(10.0, 500.0), (40.0, 900.0)], 50.0) == (
        Earlier(40.0, 500.0),
        Earlier(10.0, 900.0),
    )
    assert seen_before([], 50.0) == ()
