from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.check import Result
from whimbrel.model.inventory import Vm
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.preflight import BootFile, HostedVm, HostFacts, MemoryFacts, MoveMark
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.checks import hosts

VM = Vm("web", 1 * GIB)
A = HostFacts("a", boot_id="1", network="10", folder="8:1")
B = HostFacts("b", boot_id="2", network="10", folder="8:1")
RDMA = Tuning(transport=Transport.RDMA)


def test_one_kernel_network_and_folder_are_one_host() -> None:
    check = hosts.different_hosts(A, replace(A, name="b"))
    assert check.result is Result.FAIL
    assert "same host" in check.detail


@pytest.mark.parametrize("other", [{"boot_id": "2"}, {"network": "11"}, {"folder": "8:2"}])
def test_another_kernel_network_or_folder_is_another_host(other: dict[str, str]) -> None:
    assert hosts.different_hosts(A, replace(A, **other)).result is Result.PASS  # type: ignore[arg-type]


def test_clones_of_an_installation_are_two_hosts() -> None:
    clones = replace(A, machine_id="m"), replace(B, machine_id="m")
    assert hosts.different_hosts(*clones).result is Result.PASS


def test_a_name_is_taken_by_a_vm_that_lives_and_warned_of_where_one_has_ended() -> None:
    assert hosts.name_free(VM, replace(B, vms=(HostedVm("web", 77),))).result is Result.FAIL
    assert hosts.name_free(VM, replace(B, vms=(HostedVm("web"),))).result is Result.WARN
    assert hosts.name_free(VM, replace(B, vms=(HostedVm("mail", 77),))).result is Result.PASS


def test_a_folder_that_others_can_look_into_or_that_cannot_be_made_is_refused() -> None:
    assert hosts.private_folder(B, "/run/w").result is Result.PASS
    open_folder = hosts.private_folder(replace(B, folder_private=False), "/run/w")
    assert open_folder.result is Result.FAIL
    assert "chmod 700 /run/w" in open_folder.remedy
    assert hosts.private_folder(replace(B, folder_writable=False), "/x").result is Result.FAIL


def test_a_vm_on_the_move_is_not_moved_again_and_moves_of_others_are_warned_of() -> None:
    moving = replace(A, marks={"web": MoveMark("7", "a", "c")})
    assert hosts.other_moves(VM, moving, B).result is Result.FAIL
    assert hosts.other_moves(VM, B, moving).result is Result.FAIL
    other = hosts.other_moves(VM, A, replace(B, marks={"mail": MoveMark("8", "b", "c")}))
    assert other.result is Result.WARN
    assert "mail (from b to c)" in other.detail
    assert hosts.other_moves(VM, A, replace(B, vms=(HostedVm("mail", 7),))).result is Result.PASS


def test_the_mark_of_the_move_that_asks_does_not_count() -> None:
    moving = replace(A, marks={"web": MoveMark("7", "a", "b")})
    assert hosts.other_moves(VM, moving, moving, own="7").result is Result.PASS
    assert hosts.other_moves(VM, moving, moving, own="8").result is Result.FAIL


@pytest.mark.parametrize(
    ("ahead", "error", "result"),
    [(0.1, 0.0, Result.PASS), (3.0, 0.0, Result.WARN), (-3.0, 0.0, Result.WARN)],
)
def test_a_guests_clock_steps_by_what_the_hosts_differ(
    ahead: float, error: float, result: Result
) -> None:
    assert hosts.clocks(A, replace(B, clock_ahead=ahead, clock_error=error)).result is result


def test_clocks_that_cannot_be_told_apart_agree() -> None:
    assert hosts.clocks(A, replace(B, clock_ahead=3.0, clock_error=3.0)).result is Result.PASS


def test_memory_that_others_reserved_is_not_free() -> None:
    wanted = hosts.memory_needed(VM.memory)
    assert hosts.memory(VM, wanted, MemoryFacts(4 * GIB), "b").result is Result.PASS
    check = hosts.memory(VM, wanted, MemoryFacts(4 * GIB, 3 * GIB, ("mail",)), "b")
    assert check.result is Result.FAIL
    assert "reserved for mail" in check.detail


def test_memory_that_just_suffices_is_warned_of() -> None:
    wanted = hosts.memory_needed(VM.memory)
    assert hosts.memory(VM, wanted, MemoryFacts(wanted + 1), "b").result is Result.WARN


@given(st.integers(0, 1 << 42), st.integers(0, 1 << 42), st.integers(0, 1 << 40))
def test_more_free_memory_is_never_worse(free: int, claimed: int, more: int) -> None:
    order = [Result.FAIL, Result.WARN, Result.PASS]
    fewer, plenty = (
        hosts.memory(VM, 2 * GIB, MemoryFacts(bytes_free, claimed), "b").result
        for bytes_free in (free, free + more)
    )
    assert order.index(plenty) >= order.index(fewer)


def test_a_guest_in_huge_pages_needs_as_many_there() -> None:
    page = 2 * MIB
    assert hosts.huge_pages(VM, 0, MemoryFacts(0), "b").result is Result.PASS
    assert hosts.huge_pages(VM, page, MemoryFacts(1 * GIB), "b").result is Result.PASS
    check = hosts.huge_pages(VM, page, MemoryFacts(1 * GIB, 2 * page, ("mail",)), "b")
    assert check.result is Result.FAIL
    assert "+ 2))" in check.remedy
    assert "hugepages-2048kB" in check.remedy


def test_more_vcpus_than_cores_are_warned_of() -> None:
    assert hosts.cores(replace(VM, vcpus=2), replace(B, cpus=2)).result is Result.PASS
    assert hosts.cores(replace(VM, vcpus=3), replace(B, cpus=2)).result is Result.WARN


def test_a_kernel_must_be_the_same_file_on_both_hosts() -> None:
    vm = replace(VM, kernel=Path("/boot/vmlinuz"))
    here = replace(A, files={"/boot/vmlinuz": BootFile(10, "x")})
    assert hosts.boot_files(vm, here, replace(B, files=here.files)).result is Result.PASS
    for other in (BootFile(10, "y"), BootFile(11, "x"), None):
        check = hosts.boot_files(vm, here, replace(B, files={"/boot/vmlinuz": other}))
        assert check.result is Result.FAIL
        assert check.remedy.startswith("scp /boot/vmlinuz b:")
    assert hosts.boot_files(VM, A, B).result is Result.PASS


def test_mptcp_must_be_on_at_both_hosts_and_should_be_allowed_a_second_path() -> None:
    able = [replace(host, mptcp=True, mptcp_subflows=2) for host in (A, B)]
    assert hosts.mptcp(*able).result is Result.PASS
    assert hosts.mptcp(able[0], B).result is Result.FAIL
    assert hosts.mptcp(able[0], replace(able[1], mptcp_subflows=0)).result is Result.WARN
