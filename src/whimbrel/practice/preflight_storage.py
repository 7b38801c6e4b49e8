"""The preflight of disks that move while their VM stays (practice/storage_only.py).

Nothing is changed on the host.
"""

import asyncio
from collections.abc import Iterator, Sequence

from whimbrel.model.check import Check
from whimbrel.model.preflight import HostFacts, MachineFacts, PlaceFacts
from whimbrel.ports import Examiner, Machine, Site
from whimbrel.practice.preflight_collect import ask_host, look
from whimbrel.practice.storage_places import DiskCopy
from whimbrel.theory.checks import copies as rules
from whimbrel.theory.checks import disks, hosts, machine


async def preflight_storage(
    vm: Machine, site: Site, examiner: Examiner, copies: Sequence[DiskCopy], own: str = ""
) -> tuple[Check, ...]:
    """Return every check for copying disks to other places of the same host.

    Args:
        vm: The VM.
        site: Its host.
        examiner: What asks its hypervisor.
        copies: Which disks, and where to.
        own: The identity of the move that asks, where it has marked the VM already.

    Raises:
        HostError: The host or the VM cannot be asked.
    """
    host, running = await asyncio.gather(ask_host(site, vm.vm), examiner.machine(vm))
    sights = await asyncio.gather(
        *(look(site, path, host) for copy in copies for path in _paths(running, copy))
    )
    others = hosts.other_moves(vm.vm, host, host, own)
    return (others, *_checks(vm, host, running, copies, sights))


def _paths(running: MachineFacts, copy: DiskCopy) -> tuple[str, str]:
    """Return where a disk is and where it shall be."""
    disk = next((each for each in running.disks if each.name == copy.place.name), None)
    return (disk.chain[0] if disk else copy.facts.top.path, copy.place.path)


def _checks(
    vm: Machine,
    host: HostFacts,
    running: MachineFacts,
    copies: Sequence[DiskCopy],
    sights: Sequence[PlaceFacts],
) -> Iterator[Check]:
    yield machine.run_state(vm.vm, running)
    yield machine.not_blocked(running)
    yield machine.no_jobs(running)
    yield machine.no_bitmaps(running)
    states = {each.name: each for each in running.disks}
    wanted = []
    for copy, here, there in zip(copies, sights[::2], sights[1::2], strict=True):
        disk = states.get(copy.place.name)
        if disk is None:
            continue  # its name is not the VM's: storage_places refuses it
        yield disks.held_alone(disk, here, vm.pid, host.name)
        yield rules.no_snapshots(disk)
        yield rules.place_free(disk, there, host.name)
        wanted.append((disk, there))
    yield rules.room(wanted, host.name)
