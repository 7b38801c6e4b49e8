"""What encryption costs a move, and what the survey made the forecast say of it beforehand.

    sudo .venv/bin/python benchmarks/encryption.py      a minute

One guest, over a link without a limit, where the cipher is what a move waits for: first openly,
then by a key made for each move. Nothing else may run meanwhile. Exits with 1 where a forecast of
an encrypted move is off by more than a quarter.
"""

import asyncio
import sys

import whimbrel
from whimbrel.model.method import Method, Settings
from whimbrel.model.scenario import GuestSpec, LinkSpec, Load, Pattern, Run, Scenario
from whimbrel.model.survey import Depth
from whimbrel.model.units import GIB, MIB, format_time

METHODS = (Method.TCP, Method.MULTICHANNEL, Method.POSTCOPY)
LOAD = Load(fill=1152 * MIB, pattern=Pattern.RANDOM)

MOST = 0.25
"""What a forecast may be off by."""


async def runs(*, encrypted: bool) -> list[Run]:
    """Move the guest by each method; all must arrive."""
    scenario = Scenario(
        "encryption",
        methods=METHODS,
        link=LinkSpec(None),
        guest=GuestSpec(GIB + 512 * MIB, 1, LOAD),
        settings=Settings(encrypted=encrypted),
        survey=Depth.DEFAULT,
    )
    result = await whimbrel.run_lab([scenario])
    found = list(result.scenarios[0].runs)
    for run in found:
        if run.observed.total_time is None or run.predicted is None:
            raise SystemExit(f"{run.method}: {run.ending}: {run.reason}")
    return found


def seen_and_said(run: Run) -> tuple[float, float]:
    """Return how long a move took, and how long it was to take."""
    assert run.predicted is not None  # noqa: S101 - looked at in `runs`
    return run.observed.total_time or 0.0, run.predicted.total_time.p50


async def main() -> int:
    """Measure, print, and return the exit code."""
    good = True
    openly, secretly = await runs(encrypted=False), await runs(encrypted=True)
    for plain, secret in zip(openly, secretly, strict=True):
        (short, short_said), (long, long_said) = seen_and_said(plain), seen_and_said(secret)
        off = long_said / long - 1
        good &= abs(off) <= MOST
        print(
            f"{plain.method}: {format_time(short)} openly, {format_time(long)} encrypted "
            f"({long / short:.2f} times; forecast {format_time(short_said)} and "
            f"{format_time(long_said)}, {long_said / short_said:.2f} times; {off:+.0%})",
            flush=True,
        )
    print("forecasts of encrypted moves: " + ("kept" if good else "NOT KEPT"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
