"""Moments as people write them, also where clocks jump."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.model.moment import parse_moment, parse_span

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(
    [BERLIN, UTC, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe")]
)
NOWS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def local(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@given(NOWS, ZONES, st.integers(0, 23), st.integers(0, 59))
def test_a_time_of_day_is_its_next_within_a_day_and_the_jump(
    now: datetime, zone: ZoneInfo, hour: int, minute: int
) -> None:
    moment = parse_moment(f"{hour}:{minute:02}", now, zone)
    assert timedelta(0) < moment - now <= timedelta(hours=26)
    shown = moment.astimezone(zone)
    asked = shown.replace(hour=hour, minute=minute)
    assert abs(shown.replace(tzinfo=None) - asked.replace(tzinfo=None)) <= timedelta(hours=1)


@given(NOWS, ZONES, st.integers(1, 10**6))
def test_an_iso_time_is_read_back_as_it_was_printed(
    now: datetime, zone: ZoneInfo, ahead: int
) -> None:
    moment = (now + timedelta(seconds=ahead)).astimezone(zone)
    assert parse_moment(moment.isoformat(), now, zone) == moment
    if not moment.fold:
        assert parse_moment(moment.replace(tzinfo=None).isoformat(), now, zone) == moment


@given(NOWS, ZONES, st.integers(1, 5000))
def test_a_span_is_counted_on_no_clock_on_the_wall(
    now: datetime, zone: ZoneInfo, minutes: int
) -> None:
    assert parse_moment(f"in {minutes} min", now, zone) - now == timedelta(minutes=minutes)


@given(st.text(max_size=20))
def test_whatever_is_written_is_read_or_refused_with_a_hint(text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    hint = ""
    try:
        moment = parse_moment(text, now, BERLIN)
    except ConfigError as error:
        moment, hint = now, error.hint
    assert moment > now or hint


def test_a_time_that_the_clocks_skip_is_an_hour_later() -> None:
    moment = parse_moment("02:30", local("2026-03-29T01:00"), BERLIN)
    assert moment == local("2026-03-29T03:30")


def test_a_time_that_comes_twice_is_the_first_that_lies_ahead() -> None:
    early = parse_moment("02:30", local("2026-10-25T01:00"), BERLIN)
    assert early == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert parse_moment("02:30", early, BERLIN) == early + timedelta(hours=1)


def test_a_date_and_time_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="clocks skip it"):
        parse_moment("2026-03-29T02:30", local("2026-01-01"), BERLIN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2020-01-01T00:00", "has passed"),
        ("0001-01-01T00:00", "has passed"),
        ("24:00", "not a time"),
        ("tomorrow", "not a time"),
        ("in 20 years", "not a time"),
        ("in 9999 d", "ten years"),
        ("in 99999999999999999999 h", "ten years"),
        ("in", "not a time"),
        ("9999-12-31T23:59", "ten years"),
    ],
)
def test_what_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_moment(text, local("2026-01-01"), BERLIN)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2 h", 7200), ("1 h 30 min", 5400), ("1h30min", 5400), ("2 d", 172800), ("1.5 d", 129600)],
)
def test_spans_may_have_several_parts(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2", "2 h and more", "-2 h"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_span(text)
