"""What whimbrel itself takes of a command, from typing it to the next prompt, over real SSH.

    sudo .venv/bin/python benchmarks/overhead.py

Two hosts are network namespaces of this machine with an SSH server each (tests/far) and a link
without a limit; the guest has 512 MiB and does nothing. Surveys are skipped. Each claim is the
median of its repeats; the slowest is told as well. Nothing else may run meanwhile. Exits with 1
where a claim is not kept.
"""

import asyncio
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from far.person import Person, person  # noqa: E402 - the tests' folder is found only now
from whimbrel.model.units import MIB, format_time  # noqa: E402

REPEATS = 5
PLAN, MOVE = 2.0, 3.0
"""Seconds that are claimed."""


async def took(at: Person, *words: str) -> float:
    """Return the seconds of one command; it has to succeed."""
    began = time.monotonic()
    said = await at.whimbrel(*words, "--survey", "none")
    seconds = time.monotonic() - began
    if said.code:
        raise SystemExit(f"whimbrel {' '.join(words)} ended with {said.code}: {said.errors}")
    return seconds


def kept(what: str, seconds: list[float], most: float) -> bool:
    """Print one claim, and tell whether it is kept."""
    middle = median(seconds)
    verdict = "kept" if middle < most else "NOT KEPT"
    print(
        f"{what}: {format_time(middle)}, at worst {format_time(max(seconds))}; "
        f"under {format_time(most)} claimed: {verdict}"
    )
    return middle < most


async def main() -> int:
    """Measure both; return the exit code."""
    async with person(rate=None) as at:
        await at.up("db", memory=512 * MIB)
        async with at.redline("db", "a"):
            pass  # it has booted
        plans = [await took(at, "plan", "db", "--to", "b") for _ in range(REPEATS)]
        moves = [await took(at, "move", "db", "--to", "ba"[turn % 2]) for turn in range(REPEATS)]
    good = [
        kept("plan without a survey", plans, PLAN),
        kept("move of an idle guest of 512 MiB, unlimited link, survey skipped", moves, MOVE),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
