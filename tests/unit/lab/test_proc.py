from hypothesis import given
from hypothesis import strategies as st

from whimbrel.lab.proc import (
    TICK,
    CoreTime,
    busy_share,
    parse_cores,
    parse_list,
    parse_net_dev,
    parse_stat,
    parse_statm,
)

COUNT = st.integers(0, 2**63)


def stat_line(name: str, user: int, system: int, started: int, state: str = "S") -> str:
    before = "1 1 1 0 -1 4194560 100 0 0 0"
    return f"42 ({name}) {state} {before} {user} {system} 7 8 20 0 3 0 {started} 1000 20 184\n"


@given(st.text(st.characters(exclude_characters="\x00\n"), max_size=15), COUNT, COUNT, COUNT)
def test_a_stat_line_is_read_whatever_the_name_holds(
    name: str, user: int, system: int, started: int
) -> None:
    stat = parse_stat(stat_line(name, user, system, started))
    assert stat.name == name
    assert stat.cpu == (user + system) * TICK
    assert (stat.state, stat.started) == ("S", started)


def test_a_name_that_looks_like_the_end_of_the_name_does_not_deceive() -> None:
    stat = parse_stat(stat_line("a) R 9 (b", 1, 1, 5))
    assert (stat.name, stat.state, stat.started) == ("a) R 9 (b", "S", 5)


def test_idle_and_waiting_are_not_busy_but_stolen_time_is() -> None:
    lines = (
        "cpu  9 9 9 9 9 9 9 9 9 9",
        "cpu0 1 2 4 8 16 32 64 128 1 2",
        "cpu3 0 0 0 5 0 0 0 0 0 0",
    )
    text = "\n".join((*lines, "intr 1", ""))
    assert parse_cores(text) == {0: CoreTime(231, 255), 3: CoreTime(0, 5)}


@given(st.tuples(COUNT, COUNT), st.tuples(COUNT, COUNT))
def test_a_busy_share_lies_between_0_and_1_even_when_counters_run_back(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    assert 0 <= busy_share(CoreTime(*before), CoreTime(*after)) <= 1


def test_a_core_that_was_busy_half_the_time_is_half_busy() -> None:
    assert busy_share(CoreTime(10, 100), CoreTime(15, 110)) == 0.5


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.@", min_size=1, max_size=15)


@given(st.dictionaries(NAMES, st.tuples(COUNT, COUNT)))
def test_every_interface_but_loopback_is_read(wanted: dict[str, tuple[int, int]]) -> None:
    lines = [
        f"{name:>6}: {rx} 2 3 4 5 6 7 8 {tx} 2 3 4 5 6 7 8" for name, (rx, tx) in wanted.items()
    ]
    text = "\n".join(["Inter-| Receive", " face |bytes", "    lo: 9 0 0 0 0 0 0 0 9", *lines])
    wanted.pop("lo", None)
    assert parse_net_dev(text) == wanted


def test_resident_memory_is_counted_in_bytes() -> None:
    assert parse_statm("1000 25 3 1 0 90 0\n", 4096) == 25 * 4096


@given(st.sets(st.integers(0, 300)))
def test_a_kernel_list_of_single_numbers_is_read_back(numbers: set[int]) -> None:
    assert parse_list(",".join(map(str, sorted(numbers))) + "\n") == tuple(sorted(numbers))


def test_ranges_of_a_kernel_list_include_both_ends() -> None:
    assert parse_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
