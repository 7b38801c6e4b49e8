import os
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.lab.owner import Owner, owner_of_folder, owner_of_namespace

OWNERS = st.builds(Owner, st.integers(1, 1 << 22), st.integers(0, 1 << 60))


@given(OWNERS, st.sampled_from("ab"))
def test_a_name_tells_its_owner(owner: Owner, host: str) -> None:
    assert owner_of_namespace(owner.namespace(host)) == owner
    assert owner_of_folder(owner.folder) == owner


@given(st.text())
def test_a_name_that_we_would_not_give_has_no_owner(name: str) -> None:
    owner = owner_of_namespace(f"whimbrel-{name}")
    assert owner is None or f"whimbrel-{name}" in (owner.namespace("a"), owner.namespace("b"))


def test_names_that_only_look_like_ours_are_not_ours() -> None:
    for name in (
        "whimbrel",
        "whimbrel-1-a",
        "whimbrel-1-2-c",
        "xwhimbrel-1-2-a",
        "whimbrel-1-2-a2",
    ):
        assert owner_of_namespace(name) is None
    for name in ("lab-1", "lab-1-2-3", "lab-1-2x", "lab-"):
        assert owner_of_folder(name) is None


def test_this_process_is_alive() -> None:
    assert Owner.current().pid == os.getpid()
    assert Owner.current().alive


def test_a_pid_that_was_given_away_again_does_not_make_the_old_owner_alive() -> None:
    current = Owner.current()
    assert not Owner(current.pid, current.started - 1).alive


def test_an_owner_whose_pid_nobody_has_is_dead() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert not Owner(child.pid, 1).alive


def test_a_process_that_has_ended_but_was_not_collected_is_dead() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        owner = Owner.of(child.pid)
        assert owner.alive
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not owner.alive
