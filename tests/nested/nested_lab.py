"""`whimbrel lab --nested` as a person runs it; run by ./run test-nested."""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from whimbrel.errors import ExitCode
from whimbrel.lab.nested.tables import PIN_ALL
from whimbrel.lab.nested.team import NICS
from whimbrel.lab.owner import Owner
from whimbrel.model.units import parse_size

pytestmark = pytest.mark.timeout(2400)

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "lab.schema.json"


@asynccontextmanager
async def lab(folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command; whatever ends the test ends it."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "whimbrel", "lab", "--nested", *words],
        *["--results", str(folder / "results")],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def runs(document: dict[str, Any], table: int) -> dict[str, Any]:
    found = document["scenarios"][table]["runs"]
    return {run["preset"] or run["method"]: run for run in found}


def wires(line: str) -> list[int]:
    """Return the bytes of each of the team's wires: "sent: eth1 20.1 MiB, eth2 19.8 MiB, …"."""
    told = dict(each.split(maxsplit=1) for each in line.partition("sent: ")[2].split(", "))
    return [int(parse_size(told[nic])) for nic in NICS]


def left_of(owner: Owner) -> list[Path]:
    """Return what a lab has left: its folder, and the machines whose words name it."""
    ours = f"whimbrel-nested-{owner.tag}"
    processes = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if ours.encode() in each.read_bytes():
                processes.append(each)
        except OSError:
            continue  # it has just ended
    return [*Path(tempfile.gettempdir()).glob(f"{ours}*"), *processes]


async def test_the_lab_compares_rdma_and_a_team_on_emulated_hosts(tmp_path: Path) -> None:
    async with lab(tmp_path) as process:
        owner = Owner.of(process.pid)
        output, errors = (each.decode() for each in await process.communicate())
    sys.stdout.write(f"{errors}\n{output}")
    assert process.returncode == ExitCode.DONE, errors
    assert left_of(owner) == []
    assert output.count("compare within this table only") == 2
    document = json.loads((tmp_path / "results" / "lab.json").read_text())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert [each["scenario"]["nested"] for each in document["scenarios"]] == [True, True]
    wire, team = runs(document, 0), runs(document, 1)
    assert set(wire) == {"tcp", "multichannel", "rdma", PIN_ALL}
    assert set(team) == {"tcp", "multichannel"}
    for run in (*wire.values(), *team.values()):
        assert run["ending"] == "completed", run["reason"]
        assert run["guest"]["intact"]
        assert run["predicted"] is not None
        assert run["observed"]["downtime_observed"] > 0
    assert wire[PIN_ALL]["tuning"]["pin_all"]
    assert wire[PIN_ALL]["observed"]["wire_bytes"] > 128 * 2**20  # each page, zero or not
    assert wire["tcp"]["observed"]["wire_bytes"] < wire[PIN_ALL]["observed"]["wire_bytes"]
    alone, spread = [wires(line) for line in errors.splitlines() if "sent: " in line]
    assert max(alone) > 0.9 * sum(alone)
    assert min(spread) > 0.25 * sum(spread)
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"report.html", "table.md", "table.csv", "series.json"} <= names


async def test_ctrl_c_in_mid_move_leaves_nothing_and_keeps_the_runs_that_are_over(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, "--survey", "none") as process:
        owner = Owner.of(process.pid)
        assert process.stderr is not None
        said = []
        while line := (await process.stderr.readline()).decode():
            said.append(line)
            if "left: 5 moves" in line:
                process.send_signal(signal.SIGINT)
                break
        said.append((await process.communicate())[1].decode())
    errors = "".join(said)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    assert "everything the lab made has been removed" in errors
    assert left_of(owner) == []
    document = json.loads((tmp_path / "results" / "lab.json").read_text())
    assert [run["method"] for run in document["scenarios"][0]["runs"]][:1] == ["tcp"]
