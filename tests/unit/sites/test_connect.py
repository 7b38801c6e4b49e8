from pathlib import Path

import pytest

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.sites.connect import connect, nearest, shell
from whimbrel.sites.local import LocalShell
from whimbrel.sites.ssh import SshPlace, SshShell


def test_a_local_host_needs_no_ssh_and_its_folder_is_the_descriptions() -> None:
    host = Host("here", "qemu:///local", folder="/run/elsewhere")
    assert isinstance(shell(host), LocalShell)
    site = connect(host)
    assert (site.name, site.folder) == ("here", "/run/elsewhere")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("qemu+ssh://east", SshPlace("east")),
        ("qemu+ssh://root@10.0.0.1:2222/", SshPlace("10.0.0.1", "root", 2222)),
        ("qemu+ssh://me@[fd00::1]:22", SshPlace("fd00::1", "me", 22)),
    ],
)
def test_ssh_goes_where_the_uri_says(uri: str, place: SshPlace) -> None:
    found = shell(Host("far", uri))
    assert isinstance(found, SshShell)
    assert found._place == place


def test_keys_and_known_hosts_of_the_description_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    host = Host("far", "qemu+ssh://east", identity=Path("~/key"), known_hosts=Path("/etc/known"))
    found = shell(host)
    assert isinstance(found, SshShell)
    assert found._place.identity == Path("/home/me/key")
    assert found._place.known_hosts == Path("/etc/known")


@pytest.mark.parametrize(
    ("uri", "form"),
    [
        ("qemu+ssh://root@east/system", "qemu+ssh://root@east"),
        ("ssh://root@east:2222", "qemu+ssh://root@east:2222"),
        ("root@east", "qemu+ssh://root@east"),
        ("east", "qemu+ssh://east"),
        ("localhost", "qemu:///local"),
        ("qemu:///system", "qemu:///local"),
        ("", "qemu:///local"),
        ("qemu+tls://[fd00::1]/system", "qemu+ssh://[fd00::1]"),
    ],
)
def test_a_wrong_uri_is_refused_with_the_nearest_right_one(uri: str, form: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(Host("far", uri))
    assert "far" in caught.value.what
    assert f"Did you mean {form}?" in caught.value.hint
    assert shell(Host("far", form)).name == "far"


@pytest.mark.parametrize("uri", ["qemu+ssh://[broken", "qemu+ssh://east:99999"])
def test_where_nothing_is_near_the_forms_are_named(uri: str) -> None:
    assert nearest(uri) == ""
    with pytest.raises(ConfigError, match="qemu:///local"):
        connect(Host("far", uri))


def test_a_password_is_refused_and_never_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        connect(Host("far", "qemu+ssh://root:hunter2@east"))
    assert "hunter2" not in str(caught.value)
    assert "qemu+ssh://root@east" in caught.value.hint
