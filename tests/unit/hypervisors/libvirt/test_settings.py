"""What a host's files say of its libvirt, and what follows from it."""

from dataclasses import replace
from pathlib import Path

import pytest

from whimbrel.errors import ConfigError, Unsupported
from whimbrel.hypervisors.libvirt.settings import PORTS, Settings, settings_from
from whimbrel.model.inventory import X509, Capability
from whimbrel.model.migration import Side
from whimbrel.sites.onsite.libvirt_settings import libvirt_settings

SERVER = {"ca-cert.pem", "server-cert.pem", "server-key.pem"}
CLIENT = {"ca-cert.pem", "client-cert.pem", "client-key.pem"}
LIBVIRTS_OWN = X509("", "")


def told(folder: Path, *lines: str) -> Settings:
    config = folder / "qemu.conf"
    config.write_text("\n".join(lines))
    places = (str(config), str(folder / "pki"), str(folder / "infiniband"))
    return settings_from(libvirt_settings(*places))


def test_a_host_that_says_nothing_is_as_libvirt_comes(tmp_path: Path) -> None:
    found = settings_from(libvirt_settings(str(tmp_path / "none"), str(tmp_path), str(tmp_path)))
    assert found.ports == PORTS
    assert found.certificates == str(tmp_path / "qemu")
    assert found.found == frozenset()


def test_ports_are_read_and_comments_are_not(tmp_path: Path) -> None:
    one = ("#migration_port_max = 1", " migration_port_min = 49200 # ours", 'user = "root"')
    assert told(tmp_path, *one).ports == range(49200, 49216)
    both = ("migration_port_min = 50000", "migration_port_max=50003")
    assert told(tmp_path, *both).ports == range(50000, 50004)


def test_certificates_are_looked_for_in_the_order_in_which_libvirt_does(tmp_path: Path) -> None:
    usual = 'default_tls_x509_cert_dir = "/usual"'
    assert told(tmp_path, usual).certificates == "/usual"
    own = tmp_path / "pki" / "libvirt-migrate"
    own.mkdir(parents=True)
    (own / "ca-cert.pem").touch()
    assert told(tmp_path, usual).certificates == str(own)
    assert told(tmp_path, usual).found == frozenset({"ca-cert.pem"})
    lines = (usual, "migrate_tls_x509_cert_dir = '/mine'")
    assert told(tmp_path, *lines).certificates == "/mine"


def test_a_host_needs_for_each_end_what_that_end_shows() -> None:
    source_only = Settings(found=frozenset(CLIENT), rdma=True)
    assert source_only.lacking() == {}
    source_only.require("a", Side.SOURCE, LIBVIRTS_OWN)
    with pytest.raises(Unsupported, match=r"no server-cert\.pem and no server-key\.pem"):
        source_only.require("a", Side.DESTINATION, LIBVIRTS_OWN)
    replace(source_only, found=frozenset(SERVER | CLIENT)).require(
        "a", Side.DESTINATION, LIBVIRTS_OWN
    )


def test_a_host_without_certificates_cannot_encrypt_and_says_where_libvirt_looks() -> None:
    reason = Settings(found=frozenset()).lacking()[Capability.TLS_X509]
    assert "libvirt looks in /etc/pki/qemu, where there is no ca-cert.pem" in reason


def test_what_cannot_be_seen_is_left_to_libvirt_but_for_rdma() -> None:
    unseen = Settings()
    unseen.require("a", Side.DESTINATION, X509("/any", "/any"))
    assert set(unseen.lacking()) == {Capability.RDMA, Capability.RDMA_PIN_ALL}
    assert "without a shell" in unseen.lacking()[Capability.RDMA]
    assert "no RDMA device" in Settings(rdma=False).lacking()[Capability.RDMA]
    assert Settings(rdma=True).lacking() == {}


def test_certificates_elsewhere_are_refused_rather_than_silently_replaced() -> None:
    found = Settings(certificates="/etc/pki/qemu", found=frozenset(SERVER | CLIENT))
    found.require("b", Side.DESTINATION, X509("/mine", "/etc/pki/qemu/"))
    with pytest.raises(ConfigError, match="from /etc/pki/qemu, not from /mine"):
        found.require("a", Side.SOURCE, X509("/mine", "/etc/pki/qemu/"))
