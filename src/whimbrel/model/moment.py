"""A moment as people write it: "2026-03-29T02:30", "22:15", "in 1 h 30 min".

Local times follow the zone's rules. A time of day that the clocks skip in spring is taken an hour
later, as most clocks show it; one that comes twice in autumn is its first that still lies ahead.
"""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from whimbrel.errors import ConfigError
from whimbrel.model.units import parse_time

HINT = 'Write "22:15", "2026-03-29T22:15", the same with "Z" or "+01:00", or "in 2 h".'

LONGEST = timedelta(days=3660)
"""Nothing is planned further ahead than ten years."""

_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_PART = re.compile(r"\d+(?:\.\d+)?\s*[A-Za-zµ]+")
_DAY = 86400.0
_FIRST_YEAR, _LAST_YEAR = 1970, 9999


def parse_moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    """Read a moment that lies ahead.

    Args:
        text: What a person wrote.
        now: The present, with a zone.
        zone: The zone of times that name none.

    Returns:
        The moment in UTC, later than `now`.

    Raises:
        ConfigError: It cannot be read, has passed, does not exist in the zone, or lies more
            than ten years ahead.
    """
    words = text.strip()
    if words.startswith("in "):
        moment = _after(text, words[3:], now)
    elif match := _OF_DAY.fullmatch(words):
        hour, minute, second = (int(part or 0) for part in match.groups())
        moment = _next(time(hour, minute, second), now, zone)
    else:
        moment = _on_date(text, words, zone)
    if moment <= now:
        raise ConfigError(f'"{text}" has passed: it was {moment.astimezone(zone)}.', HINT)
    if moment - now > LONGEST:
        raise ConfigError(f'"{text}" lies more than ten years ahead.', HINT)
    return moment.astimezone(UTC)


def parse_span(text: str) -> float:
    """Read a span of several parts such as "1 h 30 min" or "2 d" as seconds."""
    parts = _PART.findall(text)
    if not parts or "".join("".join(parts).split()) != "".join(text.split()):
        raise ConfigError(f'"{text}" is not a span of time.', 'Write "2 h", "1 h 30 min" or "3 d".')
    return sum(_seconds(part) for part in parts)


def _seconds(part: str) -> float:
    number, unit = part.rstrip("d").strip(), part[-1]
    if unit == "d" and number.replace(".", "", 1).isdigit():
        return float(number) * _DAY
    return parse_time(part)


def _after(text: str, span: str, now: datetime) -> datetime:
    seconds = parse_span(span)
    if seconds > LONGEST.total_seconds():
        raise ConfigError(f'"{text}" lies more than ten years ahead.', HINT)
    # On the line of UTC, since hours that pass are no hours of a clock on the wall.
    return now.astimezone(UTC) + timedelta(seconds=seconds)


def _next(of_day: time, now: datetime, zone: tzinfo) -> datetime:
    today = now.astimezone(zone).date()
    days = [today + timedelta(days=ahead) for ahead in range(3)]
    shown = [datetime.combine(day, of_day, zone) for day in days]
    # A fold in a time that the clocks skip would lead to an hour before it.
    folded = [each.replace(fold=1) for each in shown if _exists(each, zone)]
    return min(moment for each in shown + folded if (moment := each.astimezone(UTC)) > now)


def _exists(local: datetime, zone: tzinfo) -> bool:
    back = local.astimezone(UTC).astimezone(zone)
    return back.replace(tzinfo=None) == local.replace(tzinfo=None)


def _on_date(text: str, words: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(words)
    except ValueError as error:
        raise ConfigError(f'"{text}" is not a time.', HINT) from error
    if not _FIRST_YEAR <= moment.year < _LAST_YEAR:
        raise ConfigError(f'"{text}" has passed, or lies more than ten years ahead.', HINT)
    if moment.tzinfo is not None:
        return moment
    local = moment.replace(tzinfo=zone)
    if not _exists(local, zone):
        raise ConfigError(
            f'"{text}" does not exist here: the clocks skip it.', "Write an hour later."
        )
    return local
