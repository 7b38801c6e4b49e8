"""Others' presets on a real QEMU: one of each way, over a real link, with a guest that verifies."""

import os

import pytest

from whimbrel.lab import libvirts, tunnel
from whimbrel.lab.peer_suite import run_peers
from whimbrel.lab.peers import PRESETS
from whimbrel.model.method import Method
from whimbrel.model.migration import SetDowntimeLimit
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import GuestSpec, LinkSpec, Load, Pattern, Run, Scenario
from whimbrel.model.units import MIB

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="network namespaces need root")

SMALL = GuestSpec(192 * MIB, redline=Load(fill=64 * MIB, pattern=Pattern.RANDOM))


async def runs(*names: str) -> dict[str, Run]:
    scenario = Scenario(
        name="small",
        methods=(Method.AUTO,),
        timeout=60.0,
        link=LinkSpec(500e6 / 8),
        guest=SMALL,
        survey=None,
    )
    presets = [preset for preset in PRESETS if preset.peer.name in names]
    found = await run_peers(presets=presets, scenarios=[scenario])
    [part] = found.lab.scenarios
    return {run.preset: run for run in part.runs}


@pytest.mark.skipif(bool(tunnel.lacking()), reason=tunnel.lacking())
async def test_products_move_a_guest_by_their_own_rules_and_through_ssh() -> None:
    found = await runs("proxmox", "nova")
    assert {name: run.ending for name, run in found.items()} == {
        "proxmox": Ending.COMPLETED,
        "nova": Ending.COMPLETED,
    }
    assert all(run.guest is not None and run.guest.intact for run in found.values())
    assert found["nova"].decisions[0].action == SetDowntimeLimit(0.05)
    sent = found["proxmox"].observed.wire_bytes
    assert sent is not None
    assert sent > SMALL.redline.fill  # it went over the link, in the tunnel


@pytest.mark.skipif(bool(libvirts.lacking()), reason=libvirts.lacking())
async def test_virsh_moves_a_guest_between_two_libvirtds() -> None:
    found = await runs("virsh")
    run = found["virsh"]
    assert run.ending is Ending.COMPLETED, run.reason
    assert run.guest is not None
    assert run.guest.intact
    assert run.observed.downtime_observed is not None
    assert run.observed.wire_bytes is not None
    assert run.observed.wire_bytes > SMALL.redline.fill
