from dataclasses import replace

import pytest

from whimbrel.model.check import Check, Result
from whimbrel.model.inventory import Vm
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.preflight import HostFacts, RdmaFacts
from whimbrel.model.units import MIB
from whimbrel.theory.checks import rdma

VM = Vm("web", 256 * MIB, accelerator="tcg")
A = HostFacts("a", boot_id="1", network="10", folder="8:1")
B = HostFacts("b", boot_id="2", network="10", folder="8:1")
RDMA = Tuning(transport=Transport.RDMA)


def facts(
    address: str, interface: str, *, active: bool = True, **nics: tuple[str, ...]
) -> RdmaFacts:
    """Return the facts of a host with these devices, each with its NICs."""
    found = {each: frozenset(own) for each, own in nics.items()}
    return RdmaFacts(address, interface, found, frozenset(found) if active else frozenset())


def way(here: RdmaFacts | None = None, there: RdmaFacts | None = None) -> Check:
    here = here or facts("10.0.0.1", "eth1", rxe1=("eth1",))
    there = there or facts("10.0.0.2", "ens3", mlx5_0=("ens3",))
    return rdma.rdma_on_the_way(here, there, ("a", "b"), "10.0.0.2")


def test_rdma_needs_a_device_and_the_right_to_pin_memory_on_both_hosts() -> None:
    able = [replace(host, rdma=("mlx5_0",)) for host in (A, B)]
    assert rdma.rdma(VM, RDMA, *able).result is Result.PASS
    assert rdma.rdma(VM, RDMA, able[0], B).result is Result.FAIL
    tight = replace(able[1], memlock=64 * MIB)
    check = rdma.rdma(VM, RDMA, able[0], tight)
    assert check.result is Result.FAIL
    assert "ulimit -l" in check.remedy


def test_what_rdma_cannot_have_beside_it_is_refused_on_hosts_that_could_move_by_it() -> None:
    able = [replace(host, rdma=("mlx5_0",)) for host in (A, B)]
    check = rdma.rdma(VM, replace(RDMA, channels=2), *able)
    assert check.result is Result.FAIL
    assert "several channels" in check.detail
    assert "--method multichannel" in check.remedy


def test_the_nic_of_the_address_must_have_a_device_at_the_destination() -> None:
    check = way(there=facts("10.0.0.2", "ens3", mlx5_0=("ens4", "ens4.7")))
    assert check.result is Result.FAIL
    assert check.detail == (
        "On b the migration address 10.0.0.2 is on ens3, which has no RDMA device "
        "(mlx5_0 is on ens4 and ens4.7)."
    )
    assert "netdev ens3   # on b" in check.remedy
    assert "an address of ens4 and ens4.7 in whimbrel.toml" in check.remedy


def test_the_nic_by_which_the_source_goes_there_must_have_one_too() -> None:
    check = way(here=facts("10.0.0.1", "eth1", rxe2=("eth2",), rxe3=("eth3",)))
    assert check.result is Result.FAIL
    assert "a reaches 10.0.0.2 over eth1, which has no RDMA device" in check.detail
    assert "netdev eth1   # on a" in check.remedy


def test_a_device_of_that_nic_which_is_not_active_carries_nothing() -> None:
    check = way(there=facts("10.0.0.2", "ens3", active=False, mlx5_0=("ens3",)))
    assert check.result is Result.FAIL
    assert "whose RDMA device mlx5_0 is not active" in check.detail
    assert "rdma link   # on b" in check.remedy


def test_one_device_of_several_on_that_nic_is_enough() -> None:
    there = facts("10.0.0.2", "ens3", mlx5_0=("ens4",), mlx5_1=("ens3",), rxe0=("ens3",))
    assert way(there=there).result is Result.PASS
    assert way(there=replace(there, active=frozenset({"rxe0"}))).result is Result.PASS
    assert way(there=replace(there, active=frozenset({"mlx5_0"}))).result is Result.FAIL


@pytest.mark.parametrize(
    "there",
    [facts("10.0.0.2", "", rxe1=("eth1",)), facts("10.0.0.2", "ens3", siw0=(), rxe1=("eth1",))],
    ids=["nic", "device"],
)
def test_what_is_not_told_is_not_held_against_a_host(there: RdmaFacts) -> None:
    assert way(there=there).result is Result.PASS
