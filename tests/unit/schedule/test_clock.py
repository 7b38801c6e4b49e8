"""When jobs are due, by cron expressions and across jumping clocks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.schedule.jobs import again, once
from whimbrel.errors import ConfigError
from whimbrel.schedule.clock import LOOK_BACK, check_cron, local_zone, next_due, times_due

BERLIN = ZoneInfo("Europe/Berlin")
CRONS = st.sampled_from(
    ["* * * * *", "30 2 * * *", "*/7 1-4 * * sun", "0 0 31 * *", "15 3 29 2 *", "0 3 * * 1-5"]
)
TIMES = st.integers(1_700_000_000, 1_900_000_000)


def stamp(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def shown(times: list[float], zone: ZoneInfo = BERLIN) -> list[str]:
    return [f"{datetime.fromtimestamp(each, zone):%a %m-%d %H:%M}" for each in times]


@given(CRONS, TIMES, st.integers(1, 5 * 86400), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_times_due_are_sorted_distinct_and_cut_anywhere_without_loss(
    cron: str, after: int, seconds: int, zone: str
) -> None:
    job = again(cron=cron, zone=zone)
    until = after + seconds
    middle = after + seconds // 3
    whole = times_due(job, after, until)
    assert whole == sorted(set(whole))
    assert all(after < each <= until for each in whole)
    assert times_due(job, after, middle) + times_due(job, middle, until) == whole
    assert next_due(job, after) == whole[0] if whole else True


def test_a_job_that_comes_once_is_due_once() -> None:
    assert times_due(once(), 999.0, 1000.0) == [1000.0]
    assert times_due(once(), 1000.0, 5000.0) == []
    assert next_due(once(), 0.0) == 1000.0
    assert next_due(once(), 1000.0) is None


def test_a_time_that_the_clocks_skip_is_still_a_turn_or_the_next_day() -> None:
    job = again(cron="30 2 * * *", zone="Europe/Berlin")
    found = times_due(job, stamp("2026-03-28T00:00"), stamp("2026-03-31T00:00"))
    days = [text[4:9] for text in shown(found)]
    assert days in (["03-28", "03-29", "03-30"], ["03-28", "03-30"])


def test_a_time_that_comes_twice_is_due_once_or_twice_but_never_lost() -> None:
    job = again(cron="30 2 * * *", zone="Europe/Berlin")
    found = times_due(job, stamp("2026-10-24T12:00"), stamp("2026-10-26T12:00"))
    assert [text[4:9] for text in shown(found)][-1] == "10-26"
    assert "Sun 10-25 02:30" in shown(found)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", "Sun"),
        ("7", "Sun"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("5-7", "Fri Sat Sun"),
        ("mon,3", "Mon Wed"),
        ("*/2", "Tue Thu Sat Sun"),
        ("*", "Mon Tue Wed Thu Fri Sat Sun"),
    ],
)
def test_weekdays_are_counted_as_cron_counts_them(field: str, days: str) -> None:
    monday = datetime(2026, 6, 1, tzinfo=UTC)
    job = again(cron=f"0 12 * * {field}")
    week = times_due(job, monday.timestamp(), (monday + timedelta(days=7)).timestamp())
    assert [text[:3] for text in shown(week)] == days.split()


def test_where_both_days_are_given_both_must_hold() -> None:
    job = again(cron="0 12 13 * fri")
    found = times_due(job, stamp("2026-11-10T00:00"), stamp("2026-12-14T00:00"))
    assert shown(found, BERLIN)[0] == "Fri 11-13 13:00"
    assert len(found) == 1


def test_what_was_due_very_long_ago_is_not_counted() -> None:
    job = again(cron="0 0 * * *")
    assert len(times_due(job, 0.0, 1_800_000_000.0)) == LOOK_BACK // 86400


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 * * 8", "0 0 30 2 *", "@daily", "x"]
)
def test_what_is_no_expression_or_never_due_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_cron(cron, "UTC")
    assert "five fields" in caught.value.hint


def test_a_zone_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="zone"):
        check_cron("* * * * *", "Moon/Tranquility")


def test_this_machine_has_a_zone() -> None:
    assert ZoneInfo(local_zone()).key == local_zone()
