"""Where a host is, as people write it."""

import pytest

from whimbrel.errors import ConfigError
from whimbrel.model.uri import HostPlace, parse_uri


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("qemu:///local", HostPlace()),
        ("qemu+ssh://server", HostPlace("server")),
        ("qemu+ssh://root@10.0.0.1", HostPlace("10.0.0.1", "root")),
        ("qemu+ssh://root@server:2222/", HostPlace("server", "root", 2222)),
        ("qemu+ssh://[fd00::1]:23", HostPlace("fd00::1", None, 23)),
    ],
)
def test_a_uri_tells_where_a_host_is(text: str, place: HostPlace) -> None:
    assert parse_uri(text) == place
    assert place.local == (text == "qemu:///local")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "local",
        "qemu:///system",
        "qemu+ssh://",
        "qemu+ssh://a/b",
        "qemu+ssh://a:0",
        "qemu+ssh://[",
    ],
)
def test_what_is_no_uri_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"qemu\+ssh://user@host:port"):
        parse_uri(text)


@pytest.mark.parametrize(
    ("text", "own", "local", "shell"),
    [
        ("libvirt:///system", "qemu:///system", True, True),
        ("libvirt+unix:///system?socket=/r/s", "qemu+unix:///system?socket=/r/s", True, True),
        ("libvirt+ssh://root@east/system", "qemu+ssh://root@east/system", False, True),
        ("libvirt+ssh://east:2222/system", "qemu+ssh://east:2222/system", False, True),
        ("libvirt+tls://east/system", "qemu+tls://east/system", False, False),
        ("libvirt+tls://e/system?pkipath=/pki", "qemu+tls://e/system?pkipath=/pki", False, False),
        ("libvirt+tcp://[fd00::1]:1/system", "qemu+tcp://[fd00::1]:1/system", False, False),
    ],
)
def test_libvirts_hosts_are_mapped_on_its_own_transport(
    text: str, own: str, *, local: bool, shell: bool
) -> None:
    place = parse_uri(text)
    assert place.libvirt == own
    assert place.local is local
    assert place.shell is shell
    assert place.unguarded is text.startswith("libvirt+tcp")


@pytest.mark.parametrize(
    "text",
    [
        "libvirt:///session",
        "libvirt:///local",
        "libvirt://east/system",
        "libvirt+ssh:///system",
        "libvirt+ssh://east",
        "libvirt+ssh://-oProxyCommand=x/system",
        "libvirt+ssh://east/system?command=/tmp/x",
        "libvirt+ssh://east/system#x",
        "libvirt+ext://east/system",
        "libvirt+tls://east/system?pkipath=pki",
        "libvirt+tls://east/system?no_verify=1",
        "libvirt+tcp://east/system?pkipath=/pki",
        "libvirt+unix:///system?socket=relative",
        "libvirt+unix:///system?socket=/a&socket=/b",
    ],
)
def test_what_no_libvirt_answers_or_asks_for_more_than_a_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"libvirt\+ssh://user@host:port/system"):
        parse_uri(text)


def test_a_password_for_libvirt_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri("libvirt+ssh://root:hunter2@server/system")
    assert "hunter2" not in str(caught.value)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri("qemu+ssh://root:hunter2@server")
    assert "hunter2" not in str(caught.value)
