"""Jobs for tests."""

from dataclasses import replace
from typing import Any

from whimbrel.model.job import Job

ONCE = Job(("move", "vm1", "--to", "b"), 1000.0, "", "UTC", 600.0, "/", 0.0)
AGAIN = replace(ONCE, at=None, cron="0 * * * *")


def once(**changes: Any) -> Job:
    return replace(ONCE, **changes)


def again(**changes: Any) -> Job:
    return replace(AGAIN, **changes)
