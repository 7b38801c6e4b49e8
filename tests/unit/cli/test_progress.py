from io import StringIO

from rich.console import Console

from whimbrel.cli.progress import Terminal
from whimbrel.lab.plan import Planned
from whimbrel.model.method import Method, Tuning
from whimbrel.model.migration import (
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
)
from whimbrel.model.prediction import Interval, PassBand, Prediction, Verdict
from whimbrel.model.scenario import Scenario
from whimbrel.model.units import GIB, MIB

PLANNED = Planned(Method.TCP, Tuning(), 1, 1, 1)
BEGUN: list[Event] = [PhaseChange(Phase.PRECOPY, 0.0), Pass(1, 0.0, 0, GIB)]


def looked_at(at: float, left: int, phase: Phase = Phase.PRECOPY) -> Observation:
    sent = GIB - left
    return Observation(at, phase, sent, left, GIB, bandwidth=100.0 * MIB, passes=1)


def prediction(seconds: float, spread: float) -> Prediction:
    low, high = seconds * (1 - spread), seconds * (1 + spread)
    total, none = Interval(low, seconds, high), Interval(0.0, 0.0, 0.0)
    sent = Interval(GIB, GIB, GIB)
    seven = (none, sent, none, none, none, none, none, none)
    whole = PassBand(1, 1.0, none, Interval(GIB, GIB, GIB))
    return Prediction(Tuning(), 60.0, 0.97, Verdict.GO, total, *seven, (whole,))


def shown(*events: Event | Decision, said: Prediction | None = None) -> str:
    """Return everything that stood on the live line and above it."""
    file = StringIO()
    with Terminal(Console(file=file, force_terminal=True, width=300)) as terminal:
        terminal.scenario_begins(Scenario(), 1)
        terminal.run_begins(PLANNED)
        if said is not None:
            terminal.foreseen(said)
        for event in events:
            if isinstance(event, Decision):
                terminal.decided(event)
            else:
                terminal.happened(event)
    return file.getvalue()


def test_what_was_foreseen_is_shown_before_the_move_begins() -> None:
    assert "38 s left, 30-46 s; will converge: 97 %" in shown(said=prediction(38.0, 0.2))


def test_a_foreseen_move_shows_how_long_it_still_takes() -> None:
    text = shown(*BEGUN, looked_at(5.0, GIB // 2), said=prediction(10.0, 0.1))
    assert "5.0 s left" in text
    assert "will converge: 97 %" in text
    assert "pass 1" in text


def test_a_move_of_which_nothing_was_said_shows_it_too() -> None:
    text = shown(*BEGUN, looked_at(5.0, GIB // 2))
    assert "5.0 s left" in text
    assert "will converge: 70 %" in text


def test_minutes_are_told_as_minutes() -> None:
    assert "10 min left, 9 min to 11 min" in shown(said=prediction(600.0, 0.1))


def test_past_the_point_of_no_return_only_time_is_told() -> None:
    post: list[Event] = [
        PhaseChange(Phase.POSTCOPY, 6.0),
        looked_at(6.5, 400 * MIB, Phase.POSTCOPY),
    ]
    last = shown(*BEGUN, *post).rsplit("postcopy", 1)[0].rsplit("\r", 1)[-1]
    assert "4.0 s left" in last
    assert "converge" not in last


def test_a_stalled_move_shows_how_its_chance_falls() -> None:
    stuck = [Pass(n, 10.0 * n, n * GIB, 800 * MIB) for n in range(2, 6)]
    assert "will converge: 1 %" in shown(*BEGUN, *stuck, looked_at(51.0, 700 * MIB))


def test_a_move_begun_anew_is_told_anew() -> None:
    called_back = [PhaseChange(Phase.CANCELLED, 7.0), PhaseChange(Phase.SETUP, 0.0)]
    text = shown(*BEGUN, *called_back, *BEGUN, looked_at(5.0, GIB // 2))
    assert "5.0 s left" in text


def test_every_decision_is_told_with_its_reason() -> None:
    text = shown(
        *BEGUN,
        Decision(SetDowntimeLimit(0.8), "passes stall", 3.0),
        Decision(Cancel(), "nothing is left", 9.0),
    )
    assert "set downtime limit, since passes stall" in text
    assert "cancel, since nothing is left" in text
