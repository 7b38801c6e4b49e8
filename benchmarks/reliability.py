"""The fault matrices: every fault in every phase of a move, on real QEMU, by the real command.

    sudo .venv/bin/python benchmarks/reliability.py                       all of it, an hour
    sudo .venv/bin/python benchmarks/reliability.py --only "first pass"   a phase, or a fault,
                                                              or both: "first pass / port taken"
    sudo .venv/bin/python benchmarks/reliability.py --write               and docs/reliability.md
    sudo .venv/bin/python benchmarks/reliability.py --libvirt             on two real libvirtd
    sudo .venv/bin/python benchmarks/reliability.py --peer                and libvirt leads moves
    sudo .venv/bin/python benchmarks/reliability.py --missing --write     what was not kept yet

Exits with 1 where a cell does not hold. What was measured is kept in docs/reliability.json, and
reliability-libvirt.json and reliability-peer.json beside it, so that phases can be measured one
after the other; the page is made from those.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from faults import injections, phases  # noqa: E402 - the tests' folder is found only now
from faults.matrix import run_cell  # noqa: E402
from faults.report import cell_text, page_part  # noqa: E402
from faults.row import Row  # noqa: E402
from libvirtd import fault_matrix  # noqa: E402
from whimbrel.cli.running import run  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
_OWN = re.compile(r"/tmp/\w+-\w+")  # noqa: S108 - a cell's folder, only looked for
COMMAND = "sudo .venv/bin/python benchmarks/reliability.py"


@dataclass(frozen=True)
class Matrix:
    """One of the matrices.

    Attributes:
        name: What its part of the page is called.
        kept: Where its rows are kept.
        command: What measures it.
        phases: Its columns.
        faults: Its rows.
        run_cell: Measures one cell.
    """

    name: str
    kept: Path
    command: str
    phases: type[StrEnum]
    faults: type[StrEnum]
    run_cell: Callable[[Any, Any], Awaitable[Row]]

    def cells(self, only: str = "") -> list[tuple[StrEnum, StrEnum]]:
        """Return every cell, or those whose phase or fault has this name, or "PHASE / FAULT"."""
        return [
            (phase, fault)
            for phase in self.phases
            for fault in self.faults
            if not only or only in {phase.value, fault.value, f"{phase} / {fault}"}
        ]

    def measured(self) -> dict[tuple[StrEnum, StrEnum], Row]:
        """Return the rows that were measured before."""
        if not self.kept.exists():
            return {}
        rows = [
            Row(
                **{**each, "phase": self.phases(each["phase"]), "fault": self.faults(each["fault"])}
            )
            for each in json.loads(self.kept.read_text())
        ]
        return {(row.phase, row.fault): row for row in rows}

    def keep(self, rows: dict[tuple[StrEnum, StrEnum], Row]) -> None:
        """Keep rows, and let the page show them."""
        ordered: Sequence[Row] = [rows[cell] for cell in self.cells() if cell in rows]
        self.kept.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n")
        begin, end = f"<!-- {self.name}: begin -->\n", f"<!-- {self.name}: end -->"
        before, _, rest = PAGE.read_text().partition(begin)
        _, _, after = rest.partition(end)
        part = page_part(ordered, self.command, self.phases, self.faults)
        PAGE.write_text(before + begin + part + end + after)


PLAIN = Matrix(
    name="matrix",
    kept=ROOT / "docs" / "reliability.json",
    command=f"{COMMAND} --write",
    phases=phases.Phase,
    faults=injections.Fault,
    run_cell=run_cell,
)
LIBVIRT = Matrix(
    name="libvirt",
    kept=ROOT / "docs" / "reliability-libvirt.json",
    command=f"{COMMAND} --libvirt --write",
    phases=fault_matrix.Phase,
    faults=fault_matrix.Fault,
    run_cell=fault_matrix.run_cell,
)
PEER = Matrix(
    name="peer",
    kept=ROOT / "docs" / "reliability-peer.json",
    command=f"{COMMAND} --peer --write",
    phases=fault_matrix.Phase,
    faults=fault_matrix.Fault,
    run_cell=partial(fault_matrix.run_cell, peer=True),
)


async def main(matrix: Matrix, only: str, *, missing: bool, write: bool) -> int:
    """Measure the cells asked for; return how many do not hold.

    Args:
        matrix: Of which.
        only: See `Matrix.cells`.
        missing: Whether those that were kept before are left out.
        write: Whether to keep what is measured.
    """
    failed = 0
    for phase, fault in matrix.cells(only):
        if missing and (phase, fault) in matrix.measured():  # others may measure as well
            continue
        row = await matrix.run_cell(phase, fault)
        row.date = time.strftime("%Y-%m-%d", time.gmtime())
        row.version = version("whimbrel")
        row.said, row.last = (_OWN.sub("/FOLDER", words) for words in (row.said, row.last))
        failed += bool(row.failures)
        print(f"{phase} / {fault}: {cell_text(row)} ({row.seconds:.0f} s)", flush=True)
        for failure in row.failures:
            print(f"    {failure}", flush=True)
        if row.failures:
            print(f"    said: {row.said}", flush=True)
        if write:
            matrix.keep({**matrix.measured(), (phase, fault): row})  # others may measure as well
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="PHASE|FAULT")
    parser.add_argument("--libvirt", action="store_true")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    chosen = PEER if asked.peer else LIBVIRT if asked.libvirt else PLAIN
    if not chosen.cells(asked.only):
        names = ", ".join((*chosen.phases, *chosen.faults))
        parser.error(f"--only {asked.only}: there is {names}, and PHASE / FAULT")
    sys.exit(min(1, run(main(chosen, asked.only, missing=asked.missing, write=asked.write))))
