"""When jobs are due; the one file that knows APScheduler (and the zone of this machine).

APScheduler reads cron expressions and wakes the scheduler. What is due is asked of the store each
time it wakes, so a wake that is missed or comes twice does no harm.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tzlocal
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from whimbrel.errors import ConfigError
from whimbrel.model.job import Job

CRON_HINT = (
    'Write five fields: minute, hour, day, month, weekday: "30 2 * * sun" is Sundays at 02:30.'
)

LOOK_BACK = 35 * 86400.0
"""Seconds: what was due longer ago is not counted any more."""

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAYS = re.compile(r"(\d|\*)(?:-(\d))?(?:/(\d+))?")


def local_zone() -> str:
    """Return the name of this machine's zone, "UTC" where it has none that is known."""
    try:
        return str(ZoneInfo(tzlocal.get_localzone_name()))
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        return "UTC"


def check_cron(expression: str, zone: str) -> None:
    """Raise `ConfigError` where a cron expression cannot be read or is never due."""
    trigger = _cron(expression, zone)
    if trigger.get_next_fire_time(None, datetime.now(UTC)) is None:
        raise ConfigError(f'The cron expression "{expression}" is never due.', CRON_HINT)


def times_due(job: Job, after: float, until: float) -> list[float]:
    """Return when a job is due later than `after` and not later than `until`, sorted.

    All times are seconds since 1970-01-01 UTC. A job that comes again is not asked for what was
    more than `LOOK_BACK` before `until`.
    """
    if job.at is not None:
        return [job.at] if after < job.at <= until else []
    trigger = _cron(job.cron, job.zone)
    found: list[float] = []
    last = datetime.fromtimestamp(max(after, until - LOOK_BACK), UTC)
    while (due := trigger.get_next_fire_time(last, last)) is not None:
        if due.timestamp() > until:
            break
        if due.timestamp() > after:
            found.append(due.timestamp())
        last = due
    return found


def next_due(job: Job, after: float) -> float | None:
    """Return when a job is due next after a moment, in seconds as above; None for never."""
    if job.at is not None:
        return job.at if job.at > after else None
    last = datetime.fromtimestamp(after, UTC)
    due = _cron(job.cron, job.zone).get_next_fire_time(last, last)
    return None if due is None else float(due.timestamp())


class Alarm:
    """Wakes somebody when jobs are due; to be used within a running event loop."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def start(self) -> None:
        """Begin to wake."""
        self._scheduler.start()

    def stop(self) -> None:
        """Wake no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, seconds: float, wake: Callable[[], Awaitable[None]]) -> None:
        """Wake at once and then every so many seconds."""
        self._add("every", IntervalTrigger(seconds=seconds), wake, next_run_time=datetime.now(UTC))

    def set(self, job: Job, wake: Callable[[], Awaitable[None]]) -> None:
        """Wake whenever a job is due; one whose time has passed is not woken for."""
        if job.at is None:
            trigger = _cron(job.cron, job.zone)
        else:
            trigger = DateTrigger(datetime.fromtimestamp(job.at, UTC))
        self._add(f"{job.number}", trigger, wake)

    def clear(self, number: int) -> None:
        """Wake no more for a job; harmless when none was set."""
        if self._scheduler.get_job(f"{number}"):
            self._scheduler.remove_job(f"{number}")

    def _add(
        self, name: str, trigger: object, wake: Callable[[], Awaitable[None]], **more: datetime
    ) -> None:
        self._scheduler.add_job(
            wake,
            trigger,
            id=name,
            replace_existing=True,
            misfire_grace_time=None,  # late is for the store to judge
            coalesce=True,
            max_instances=1,
            **more,
        )


def _cron(expression: str, zone: str) -> CronTrigger:
    fields = expression.split()
    if len(fields) != 5:  # noqa: PLR2004 - crontab(5) has five
        raise ConfigError(f'"{expression}" is not a cron expression.', CRON_HINT)
    try:
        words = " ".join([*fields[:4], _weekdays(fields[4])])
        return CronTrigger.from_crontab(words, timezone=ZoneInfo(zone))
    except ZoneInfoNotFoundError as error:
        raise ConfigError(f'The zone "{zone}" is not known here.', "Install tzdata.") from error
    except ValueError as error:
        raise ConfigError(f'"{expression}" is not a cron expression: {error}', CRON_HINT) from error


def _weekdays(field: str) -> str:
    """Return a cron field of weekdays by their names: APScheduler counts from Monday, not Sunday.

    Also `5-7`, which it would not take, since for it Sunday is the end of a week.
    """
    parts = []
    for part in field.lower().split(","):
        match = _WEEKDAYS.fullmatch(part)
        if part == "*" or match is None:
            parts.append(part)
            continue
        first, last, step = match.groups()
        low = 0 if first == "*" else int(first)
        high = 6 if first == "*" else int(last or (6 if step else first))
        days = range(low, high + 1, int(step or 1))
        if not days or high >= len(_DAYS):
            raise ValueError(f"{part} are no weekdays")
        parts.extend(_DAYS[day] for day in days)
    return ",".join(dict.fromkeys(parts))
