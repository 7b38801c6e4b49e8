from pathlib import Path

import pytest

from whimbrel.practice.survey_site import RDMA_PAYLOAD, rdma_rate
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
    assert (card["active"], card["software"], card["interface"]) == (True, False, "eth1")
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


def port(device: Path, *, hardware: bool) -> None:
    place = device / "ports" / "1"
    (place / "gid_attrs" / "ndevs").mkdir(parents=True)
    (place / "gid_attrs" / "ndevs" / "0").write_text("eth1\n")
    (place / "state").write_text("4: ACTIVE\n")
    (place / "rate").write_text("100 Gb/sec (4X EDR)\n")
    if hardware:
        (device / "device").mkdir()
