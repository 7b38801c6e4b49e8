from pathlib import Path

import pytest

from whimbrel.practice.rdma import RDMA_PAYLOAD, rdma_rate
from whimbrel.sites.onsite.rdma import rate_of, rdma_ports

HERE = {"eth1": {"addresses": ["10.0.0.1/24"]}}


@pytest.mark.parametrize(
    ("line", "rate"),
    [("100 Gb/sec (4X EDR)", 12.5e9), ("2.5 Gb/sec (1X SDR)", 312.5e6), ("", None), ("x y", None)],
)
def test_a_ports_rate_is_read_as_the_kernel_writes_it(line: str, rate: float | None) -> None:
    assert rate_of(line) == rate


def test_ports_are_listed_with_their_nics(tmp_path: Path) -> None:
    port(tmp_path / "mlx5_0", hardware=True)
    port(tmp_path / "rxe1", hardware=False)
    card, emulated = rdma_ports(str(tmp_path))
    assert card["device"] == "mlx5_0"
    assert (card["active"], card["software"], card["interfaces"]) == (True, False, ["eth1"])
    assert (emulated["device"], emulated["software"]) == ("rxe1", True)


def test_a_host_without_devices_has_no_ports(tmp_path: Path) -> None:
    assert rdma_ports(str(tmp_path / "none")) == []


def test_only_a_cards_rate_on_the_nic_of_the_address_counts(tmp_path: Path) -> None:
    port(tmp_path / "mlx5_0", hardware=True)
    cards = rdma_ports(str(tmp_path))
    assert rdma_rate(cards, HERE, "10.0.0.1") == 12.5e9 * RDMA_PAYLOAD
    assert rdma_rate(cards, HERE, "10.0.0.2") is None
    assert rdma_rate([{**cards[0], "software": True}], HERE, "10.0.0.1") is None
    assert rdma_rate([{**cards[0], "active": False}], HERE, "10.0.0.1") is None


def test_a_device_is_on_the_nics_that_its_addresses_name_and_on_no_others(tmp_path: Path) -> None:
    place = port(tmp_path / "mlx5_0", hardware=True)
    for number, name in enumerate(("eth1", "eth1.7", "", "bond0")):
        (place / "gid_attrs" / "ndevs" / str(number)).write_text(f"{name}\n")
    (tmp_path / "mlx5_0" / "device" / "net" / "eth9").mkdir(parents=True)
    [card] = rdma_ports(str(tmp_path))
    assert card["interfaces"] == ["bond0", "eth1", "eth1.7"]


def test_where_no_address_names_a_nic_the_cards_count_and_what_is_over_them_but_no_bridge(
    tmp_path: Path,
) -> None:
    place = port(tmp_path / "devices" / "mlx5_0", hardware=True)
    (place / "gid_attrs" / "ndevs" / "0").unlink()
    (tmp_path / "devices" / "mlx5_0" / "device" / "net" / "ib0").mkdir(parents=True)
    (tmp_path / "nics" / "ib0" / "upper_bond0").mkdir(parents=True)
    (tmp_path / "nics" / "bond0" / "upper_bond0.7").mkdir(parents=True)
    (tmp_path / "nics" / "bond0" / "upper_br0").mkdir()
    (tmp_path / "nics" / "br0" / "bridge").mkdir(parents=True)
    [card] = rdma_ports(str(tmp_path / "devices"), str(tmp_path / "nics"))
    assert card["interfaces"] == ["bond0", "bond0.7", "ib0"]


def test_a_device_of_which_no_nic_is_told_has_none(tmp_path: Path) -> None:
    place = port(tmp_path / "siw0", hardware=False)
    (place / "gid_attrs" / "ndevs" / "0").unlink()
    [emulated] = rdma_ports(str(tmp_path))
    assert emulated["interfaces"] == []
    assert rdma_rate([emulated], HERE, "10.0.0.9") is None


def port(device: Path, *, hardware: bool) -> Path:
    place = device / "ports" / "1"
    (place / "gid_attrs" / "ndevs").mkdir(parents=True)
    (place / "gid_attrs" / "ndevs" / "0").write_text("eth1\n")
    (place / "state").write_text("4: ACTIVE\n")
    (place / "rate").write_text("100 Gb/sec (4X EDR)\n")
    if hardware:
        (device / "device").mkdir()
    return place
