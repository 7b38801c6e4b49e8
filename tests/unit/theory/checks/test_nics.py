"""What is said of several NICs beforehand, and the commands that would join them."""

from dataclasses import replace

from whimbrel.model.check import Result
from whimbrel.model.preflight import MptcpFacts
from whimbrel.theory.checks.nics import several_nics

FURTHER = ("10.0.1.2", "10.0.2.2")
NAMES = ("a", "b")
HERE = MptcpFacts(known=True, enabled=True, subflows=2, accepted=2)
THERE = replace(HERE, announced=frozenset(FURTHER))


def test_nics_that_are_joined_pass() -> None:
    check = several_nics(HERE, THERE, FURTHER, NAMES, needed=True)
    assert check.result is Result.PASS
    assert "3 NICs" in check.detail


def test_what_is_missing_is_told_as_commands_for_each_host() -> None:
    off = replace(HERE, enabled=False, accepted=0)
    there = replace(THERE, announced=frozenset(FURTHER[:1]))
    check = several_nics(off, there, FURTHER, NAMES, needed=True)
    assert check.result is Result.FAIL
    lines = [line.split("   # ")[0] for line in check.remedy.splitlines()]
    assert lines == [
        "--prepare-network",
        "sysctl -w net.mptcp.enabled=1",
        "ip mptcp limits set subflow 2 add_addr_accepted 2",
        "ip mptcp endpoint add 10.0.2.2 port 9099 signal",
    ]


def test_it_is_no_obstacle_where_another_way_may_be_taken() -> None:
    for facts in (replace(HERE, enabled=False), MptcpFacts(known=False)):
        assert several_nics(facts, THERE, FURTHER, NAMES, needed=False).result is Result.WARN


def test_a_kernel_without_it_is_named() -> None:
    check = several_nics(HERE, MptcpFacts(known=False), FURTHER, NAMES, needed=True)
    assert check.result is Result.FAIL
    assert "kernel of b" in check.detail
