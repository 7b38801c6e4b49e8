"""Hosts and VMs as people see them."""

import pytest

from whimbrel.model.inventory import Capability, Host, MigrationLink
from whimbrel.model.overview import HostSeen, VmSeen, VmState, vm_seen
from whimbrel.model.units import GIB
from whimbrel.report.overview import (
    HOST_COLUMNS,
    VM_COLUMNS,
    capability_lines,
    host_cells,
    host_document,
    uptime_text,
    vm_cells,
    vm_document,
    vms_document,
)

HOST = Host("a", "qemu:///local", links=(MigrationLink("10.0.0.1", 125e6), MigrationLink("::1")))
SEEN = HostSeen("a", qemu="10.0.2", cores=2, memory=8 * GIB, free=6 * GIB, addresses=("10.0.0.9",))


def test_a_hosts_row_tells_which_links_are_not_there() -> None:
    cells = dict(zip(HOST_COLUMNS, host_cells(SEEN, HOST), strict=True))
    assert cells["Migration links"] == "10.0.0.1 1 Gbit/s (not there), ::1"
    assert cells["Free memory"] == "6 GiB of 8 GiB"


def test_an_unreachable_host_has_no_figures() -> None:
    cells = host_cells(HostSeen("a", unreachable="no way"), HOST)
    assert cells == ("a", "unreachable", "10.0.0.1 1 Gbit/s, ::1", "", "", "")


def test_a_vms_row_says_what_holds_it_up() -> None:
    vm = VmSeen("web", "a", VmState.RUNNING, GIB, 2, ("/d",), 61.2, moving=True, place="/p")
    cells = dict(zip(VM_COLUMNS, vm_cells(vm), strict=True))
    assert cells["State"] == "running, in a move"
    assert (cells["Memory"], cells["Up"]) == ("1 GiB", "61 s")
    assert "by hand" in vm_cells(VmSeen("old", "a", VmState.PAUSED, socket="/q"))[2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (17.9, "17 s"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_uptimes_read_well(seconds: float, text: str) -> None:
    assert uptime_text(seconds) == text


def test_capabilities_are_told_with_the_reason_for_each_that_lacks() -> None:
    lines = capability_lines({Capability.RDMA: "no device"})
    assert "rdma" not in lines[0].removeprefix("has ").split(", ")
    assert lines[1:] == ["no rdma: no device"]
    told = host_document(SEEN, HOST, {Capability.RDMA: "no device"})
    assert told["lacking"] == {"rdma": "no device"}


def test_documents_hold_no_place_that_only_whimbrel_uses() -> None:
    vm = VmSeen("web", "a", VmState.RUNNING, place="/run/x", started=7, pid=3)
    told = vms_document([HostSeen("a", vms=(vm,)), HostSeen("b", unreachable="no way")])
    shown = vm_document(vm)
    assert told["vms"] == [shown]
    assert shown["pid"] == 3
    assert not {"place", "started"} & shown.keys()
    assert told["unreachable"] == {"b": "no way"}


@pytest.mark.parametrize(
    ("alive", "status", "state"),
    [
        (True, "running", VmState.RUNNING),
        (True, "inmigrate", VmState.WAITING),
        (True, "postmigrate", VmState.MOVED),
        (True, None, VmState.UNKNOWN),
        (True, "new-in-qemu-12", VmState.UNKNOWN),
        (False, None, VmState.ENDED),
    ],
)
def test_states_are_qemus_in_peoples_words(alive: bool, status: str | None, state: VmState) -> None:
    answer = {"place": "/p/web", "record": {}, "alive": alive, "status": status}
    answer |= {"seconds": None, "resident": 0, "moving": False}
    assert vm_seen("a", answer).state == state
    assert vm_seen("a", answer).name == "web"
