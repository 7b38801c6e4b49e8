"""What `whimbrel move` says of where the guest is, however the move ends."""

import pytest

from whimbrel.cli.move import _nothing_begun
from whimbrel.cli.move_choice import refuse_obstacles
from whimbrel.cli.move_screen import sentence
from whimbrel.errors import HostUnreachable, NoFeasiblePlan
from whimbrel.model.check import failed
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.report.move import MoveSaid


def said(outcome: Outcome, *, over: bool = False) -> str:
    return sentence(MoveSaid("db", "a", "b", Tuning(), outcome, over=over))


def test_a_failed_move_says_where_the_guest_runs_in_whole_sentences() -> None:
    outcome = Outcome(Ending.FAILED, "The disk is full.", Side.SOURCE)
    assert said(outcome) == "The move of db to b failed: The disk is full. It runs on a."


def test_a_lost_guest_is_not_said_to_be_somewhere_unknown() -> None:
    outcome = Outcome(Ending.FAILED, "the guest is lost", None)
    assert said(outcome, over=True).endswith("It runs nowhere.")
    assert said(outcome).endswith("Where it runs is not known.")


def test_a_host_that_fails_beforehand_leaves_the_guest_as_it_was() -> None:
    with pytest.raises(HostUnreachable) as caught, _nothing_begun("db"):
        raise HostUnreachable("b: no SSH connection.", "Try: ssh b true")
    assert caught.value.what == "b: no SSH connection. Nothing was begun; db goes on as before."
    assert caught.value.hint == "Try: ssh b true"


def test_an_obstacle_leaves_the_guest_as_it_was() -> None:
    with pytest.raises(NoFeasiblePlan, match="goes on as before"):
        refuse_obstacles("db", "b", [failed("memory", "There is not enough.", "Free some.")])
