"""Real moves of real guests under load; the guest itself verifies its memory."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from whimbrel.errors import HostError
from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.lab.bench import run_lab
from whimbrel.model.inventory import Vm
from whimbrel.model.method import Method, Postcopy, PreparedMemory, Settings
from whimbrel.model.migration import Phase
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import (
    Access,
    GuestSpec,
    LinkSpec,
    Load,
    Measure,
    Pattern,
    Run,
    Scenario,
)
from whimbrel.model.units import MIB

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the lab makes network namespaces: needs root"),
    pytest.mark.timeout(600),
]

BUSY = Load(
    fill=96 * MIB, hot=32 * MIB, dirty_rate=20 * MIB, access=Access.SKEWED, pattern=Pattern.MIXED
)
SMALL = Scenario(name="small", guest=GuestSpec(256 * MIB, redline=BUSY), timeout=90.0, survey=None)


async def runs(scenario: Scenario) -> dict[Method, Run]:
    result = await run_lab([scenario])
    return {run.method: run for run in result.scenarios[0].runs}


async def test_every_method_moves_a_busy_guest_and_keeps_every_page() -> None:
    found = await runs(replace(SMALL, methods=tuple(Method)))
    assert set(found) == set(Method)
    for method, run in found.items():
        if method is Method.RDMA and run.ending is Ending.NOT_AVAILABLE:
            assert "RDMA" in run.reason
            continue
        if method is Method.MULTINIC:
            assert run.reason == "each host has one NIC"
            continue
        assert run.ending is Ending.COMPLETED, f"{method}: {run.reason}"
        assert run.guest is not None
        assert run.guest.intact
        assert run.guest.pages_checked == 96 * 256
        seen = run.observed
        assert seen.wall_time is not None
        assert seen.arrival_time is not None
        assert seen.total_time is not None
        assert seen.arrival_time <= seen.wall_time
        assert seen.total_time <= seen.wall_time
        assert seen.downtime_observed is not None
        assert seen.longest_gap is not None
        assert seen.downtime_observed <= seen.longest_gap + 1e-9
        assert seen.wire_bytes is not None
        assert seen.qemu_bytes is not None
        assert seen.wire_bytes > seen.qemu_bytes
        assert [p.number for p in run.passes] == sorted({p.number for p in run.passes})
        assert {track.measure for track in run.tracks} >= set(Measure) - {Measure.CPU_NUMA}


async def test_post_copy_finishes_what_pre_copy_cannot() -> None:
    # Few bytes touched: a slow machine, too, dirties pages faster than the link takes them.
    load = replace(BUSY, hot=64 * MIB, dirty_rate=120 * MIB, access=Access.UNIFORM, touch=64)
    never = replace(
        SMALL,
        guest=GuestSpec(256 * MIB, redline=load),
        link=LinkSpec(25e6),
        timeout=16.0,
        settings=Settings(downtime_limit=0.05),
        methods=(Method.TCP, Method.POSTCOPY, Method.POSTCOPY_PREEMPT),
    )
    found = await runs(never)
    assert found[Method.TCP].ending is Ending.TIMEOUT
    for method in (Method.POSTCOPY, Method.POSTCOPY_PREEMPT):
        run = found[method]
        assert run.tuning is not None
        assert run.tuning.postcopy is not Postcopy.NEVER
        assert run.ending is Ending.COMPLETED, run.reason
        assert Phase.POSTCOPY in [change.phase for change in run.phases]
        assert run.observed.arrival_time is not None
        assert run.observed.wall_time is not None
        assert run.observed.arrival_time < run.observed.wall_time
        assert [decision.reason for decision in run.decisions]
    assert all(run.guest is not None and run.guest.intact for run in found.values())


async def test_free_page_hints_keep_freed_memory_off_the_wire() -> None:
    load = Load(fill=32 * MIB, pattern=Pattern.RANDOM, freed=512 * MIB)
    freed = replace(SMALL, guest=GuestSpec(768 * MIB, redline=load), methods=(Method.TCP,))
    hinted = await runs(freed)
    plain = await runs(replace(freed, settings=Settings(free_page_hints=False)))
    with_hints = hinted[Method.TCP].observed.wire_bytes
    without = plain[Method.TCP].observed.wire_bytes
    assert with_hints is not None
    assert without is not None
    # Not all: hints and pages run a race, and only free blocks of 4 MiB are hinted.
    assert without - with_hints > load.freed / 2


async def test_multinic_uses_unequal_nics_together_and_tcp_the_first() -> None:
    load = Load(fill=64 * MIB, pattern=Pattern.RANDOM)
    scenario = replace(
        SMALL,
        guest=GuestSpec(256 * MIB, redline=load),
        link=LinkSpec(25e6, 2, (25e6, 15e6)),
        methods=(Method.MULTINIC, Method.TCP),
    )
    for method, run in (await runs(scenario)).items():
        assert run.ending is Ending.COMPLETED, run.reason
        first, second = (
            sum(track.values)
            for track in run.tracks
            if track.measure is Measure.SENT and track.label.startswith(f"host {run.source}")
        )
        several = second > 0.15 * (first + second)
        assert several == (method is Method.MULTINIC), (method, first, second)


async def test_a_bandwidth_limit_holds_until_the_switchover() -> None:
    load = Load(fill=64 * MIB, pattern=Pattern.RANDOM)
    limit = 10e6
    scenario = replace(
        SMALL,
        guest=GuestSpec(256 * MIB, redline=load),
        link=LinkSpec(None),
        settings=Settings(bandwidth_limit=limit, downtime_limit=0.05),
        methods=(Method.TCP, Method.MULTICHANNEL),
    )
    for run in (await runs(scenario)).values():
        assert run.ending is Ending.COMPLETED, run.reason
        assert run.observed.total_time is not None
        assert run.observed.total_time > 64 * MIB / limit * 0.9


async def test_prepared_memory_is_a_tuning_whose_cost_shows() -> None:
    scenario = replace(SMALL, methods=(Method.TCP,), settings=Settings(prepared_memory=None))
    run = (await runs(scenario))[Method.TCP]
    assert run.tuning is not None
    assert run.tuning.prepared_memory is None
    prepared = (await runs(replace(scenario, settings=Settings())))[Method.TCP]
    assert prepared.tuning is not None
    assert prepared.tuning.prepared_memory == PreparedMemory(2)
    resident = {
        name: max(t.values[0] for t in r.tracks if t.measure is Measure.RESIDENT)
        for name, r in {"prepared": prepared}.items()
    }
    assert resident["prepared"] > 200 * MIB


async def test_a_launch_that_fails_tells_exit_code_command_line_and_output(tmp_path: Path) -> None:
    async with QemuHost("a", tmp_path / "a") as host:
        with pytest.raises(HostError) as caught:
            await host.start(Vm("vm", 128 * MIB, kernel=tmp_path / "nothing"))
    assert "exit code 1" in caught.value.what
    assert "nothing" in caught.value.what
    assert "qemu-system-x86_64 -name guest=vm" in caught.value.hint
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").iterdir())
