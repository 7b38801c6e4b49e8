from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.lab.leftovers import Leftovers, decide
from whimbrel.lab.owner import Owner

OWNERS = st.builds(Owner, st.integers(1, 99), st.integers(0, 99))


@given(st.sets(OWNERS), st.sets(OWNERS))
def test_exactly_what_has_no_living_owner_is_left_over(alive: set[Owner], dead: set[Owner]) -> None:
    dead -= alive
    everyone = sorted(alive | dead)
    found = decide(
        [owner.namespace(host) for owner in everyone for host in "ab"],
        [Path("/run/whimbrel-0") / owner.folder for owner in everyone],
        lambda owner: owner in alive,
    )
    assert set(found.namespaces) == {owner.namespace(host) for owner in dead for host in "ab"}
    assert {folder.name for folder in found.folders} == {owner.folder for owner in dead}


@given(st.lists(st.text()))
def test_what_does_not_carry_our_prefix_is_never_left_over(names: list[str]) -> None:
    strangers = [name for name in names if not name.startswith(("whimbrel-", "lab-"))]
    folders = [Path("/run/whimbrel-0") / f"x{number}" for number in range(len(strangers))]
    assert decide(strangers, folders, lambda _: False) == Leftovers()


def test_nothing_left_over_is_false() -> None:
    assert not Leftovers()
    assert Leftovers(namespaces=("whimbrel-1-1-a",))
    assert Leftovers(folders=(Path("lab-1-1"),))
