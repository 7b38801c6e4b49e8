"""The fault matrix: every fault in every phase of a move, on real QEMU, by the real command.

    sudo .venv/bin/python benchmarks/reliability.py                       all of it, an hour
    sudo .venv/bin/python benchmarks/reliability.py --only "first pass"   a phase, or a fault,
                                                              or both: "first pass / port taken"
    sudo .venv/bin/python benchmarks/reliability.py --write               and docs/reliability.md

Exits with 1 where a cell does not hold. What was measured is kept in docs/reliability.json, so
that phases can be measured one after the other; the page is made from that.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from faults.injections import Fault  # noqa: E402 - the tests' folder is found only now
from faults.matrix import Row, cells, run_cell  # noqa: E402
from faults.phases import Phase  # noqa: E402
from faults.report import cell_text, page_part  # noqa: E402
from whimbrel.cli.running import run  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
KEPT = ROOT / "docs" / "reliability.json"
COMMAND = "sudo .venv/bin/python benchmarks/reliability.py --write"


def kept() -> dict[tuple[str, str], Row]:
    """Return the rows that were measured before."""
    if not KEPT.exists():
        return {}
    rows = [
        Row(**{**each, "phase": Phase(each["phase"]), "fault": Fault(each["fault"])})
        for each in json.loads(KEPT.read_text())
    ]
    return {(row.phase, row.fault): row for row in rows}


def keep(rows: dict[tuple[str, str], Row]) -> None:
    """Keep rows, and let the page show them."""
    ordered = [rows[cell] for cell in cells() if cell in rows]
    KEPT.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n")
    begin, end = "<!-- matrix: begin -->\n", "<!-- matrix: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + page_part(ordered, COMMAND) + end + after)


async def main(only: str, *, write: bool) -> int:
    """Measure the cells asked for; return how many do not hold."""
    rows, failed = kept(), 0
    for phase, fault in cells(only):
        row = await run_cell(phase, fault)
        row.date = time.strftime("%Y-%m-%d", time.gmtime())
        row.version = version("whimbrel")
        rows[phase, fault] = row
        failed += bool(row.failures)
        print(f"{phase} / {fault}: {cell_text(row)} ({row.seconds:.0f} s)", flush=True)
        for failure in row.failures:
            print(f"    {failure}", flush=True)
        if row.failures:
            print(f"    said: {row.said}", flush=True)
        if write:
            keep(rows)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*map(str, Phase), *map(str, Fault), *(f"{p} / {f}" for p, f in cells())]
    parser.add_argument("--only", default="", choices=names, metavar="PHASE|FAULT")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    sys.exit(min(1, run(main(asked.only, write=asked.write))))
