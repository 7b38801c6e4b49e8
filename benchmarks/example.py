"""The example of the README: one VM, planned and moved between two hosts behind SSH.

    sudo .venv/bin/python benchmarks/example.py            prints it
    sudo .venv/bin/python benchmarks/example.py --write    and puts it into README.md

The hosts are two network namespaces of this machine with an SSH server each and 1 Gbit/s between
them (tests/far). Nothing else should run meanwhile: what it prints is only as good as that.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from far.person import Person, person  # noqa: E402 - the tests' folder is found only now
from whimbrel.cli.running import run  # noqa: E402
from whimbrel.model.scenario import Load, Pattern  # noqa: E402
from whimbrel.model.units import MIB  # noqa: E402

README = ROOT / "README.md"
BEGIN, END = "<!-- move: begin -->\n", "<!-- move: end -->"
LOAD = Load(fill=700 * MIB, pattern=Pattern.TEXT, hot=32 * MIB, dirty_rate=8.0 * MIB)
WORDS = (["plan", "db", "--to", "b"], ["move", "db", "--to", "b"])
WIDTH = "150"
RATE = 125e6
"""Bytes per second of the link."""


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


async def typed(at: Person, words: list[str]) -> str:
    """Return a command and all that it says, as on a terminal."""
    said = await at.whimbrel(*words)
    lines = [f"$ whimbrel {' '.join(words)}", *said.errors.splitlines(), *said.output.splitlines()]
    return "".join(f"    {line.rstrip()}\n" if line.strip() else "\n" for line in lines)


async def example() -> str:
    """Return the README's part."""
    async with person(rate=RATE) as at:
        at.environment["COLUMNS"] = WIDTH
        await at.up("db", memory=1024 * MIB, load=LOAD)
        shown = [await typed(at, words) for words in WORDS]
        pages = await at.intact("db", on="b")
    return f"""\
A real run: a VM of 1 GiB, 700 MiB of it filled with text-like content, 32 MiB of that rewritten
all the time, between two hosts behind SSH with 1 Gbit/s between them.

{shown[0]}
{shown[1]}
All {pages} filled pages were whole afterwards. Hosts, guest and whimbrel share
{os.cpu_count()} cores of an {processor()}, which emulate the guest (TCG).
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    part = run(example())
    print(part)
    if asked.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(before + BEGIN + part + END + rest.partition(END)[2])
