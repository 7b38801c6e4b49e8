import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.storage import Copying, CopyMode
from whimbrel.model.units import MIB
from whimbrel.theory.mirroring import LEAST, Seen, must_block_writes, shares


def looks(
    copied: float, written: float, *, ready: bool = False, left: int = 500 * MIB
) -> list[Seen]:
    """Return five seconds of a copy, with so many bytes copied and written per second."""
    found = []
    for half in range(11):
        at = half / 2
        rest = max(0, round(left + (written - copied) * at))
        found.append(Seen(at, Copying(1 + round(copied * at), rest, ready)))
    return found


def test_a_copy_that_is_faster_than_the_guest_goes_on() -> None:
    assert must_block_writes(looks(100e6, 50e6)) == ""


def test_a_guest_that_writes_as_fast_as_the_copy_has_to_wait_and_hears_why() -> None:
    reason = must_block_writes(looks(100e6, 100e6))
    assert "never be in step" in reason
    assert "MiB/s" in reason


def test_a_copy_that_stands_still_while_the_guest_writes_has_it_wait() -> None:
    assert must_block_writes(looks(0, 5e6))


def test_little_that_is_left_is_given_the_time_to_be_copied() -> None:
    assert must_block_writes(looks(50e3, 50e3, left=LEAST)) == ""


def test_little_that_is_left_again_and_again_is_never_in_step() -> None:
    assert must_block_writes(looks(262e3, 262e3, left=655_000))
    assert must_block_writes(looks(262e3, 100e3, left=655_000 + 900_000)) == ""


def test_nothing_is_decided_before_enough_was_seen() -> None:
    assert must_block_writes([]) == ""
    assert must_block_writes(looks(100e6, 200e6)[:5]) == ""


def test_what_is_found_before_the_first_byte_is_copied_was_not_written_meanwhile() -> None:
    finding = [Seen(half / 2, Copying(0, half * 100 * MIB)) for half in range(11)]
    assert must_block_writes(finding) == ""
    going = [Seen(5.5 + each.at, each.copying) for each in looks(100e6, 1e6, left=1100 * MIB)]
    for count in range(len(going)):
        assert must_block_writes([*finding, *going[: count + 1]]) == ""


def test_what_is_decided_is_not_decided_again() -> None:
    seen = looks(100e6, 200e6)
    last = seen[-1]
    blocking = Copying(last.copying.done, last.copying.left, mode=CopyMode.WRITE_BLOCKING)
    assert must_block_writes([*seen, Seen(last.at, blocking)]) == ""


def test_a_copy_in_step_may_have_a_little_left_now_and_then() -> None:
    assert must_block_writes(looks(50e6, 50e6, ready=True, left=LEAST)) == ""
    calm = [*looks(50e6, 50e6, ready=True), Seen(5.5, Copying(1, 0, ready=True))]
    assert must_block_writes(calm) == ""


def test_a_copy_in_step_that_never_has_little_left_blocks_writes() -> None:
    seen = looks(50e6, 50e6, ready=True, left=40 * MIB)
    assert "stand still" in must_block_writes(seen)
    assert must_block_writes(seen, allowed=64 * MIB) == ""


@given(st.floats(1, 1e10), st.lists(st.booleans(), min_size=1, max_size=8))
def test_shares_of_a_limit_never_exceed_it_and_those_behind_get_more(
    rate: float, ready: list[bool]
) -> None:
    found = [share for share in shares(rate, ready) if share is not None]
    assert sum(found) == pytest.approx(rate)
    behind = [share for share, is_ready in zip(found, ready, strict=True) if not is_ready]
    in_step = [share for share, is_ready in zip(found, ready, strict=True) if is_ready]
    assert not behind or not in_step or min(behind) > max(in_step)


def test_without_a_limit_there_are_no_shares() -> None:
    assert shares(None, [True, False]) == [None, None]
