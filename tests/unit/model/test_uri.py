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


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_uri("qemu+ssh://root:hunter2@server")
    assert "hunter2" not in str(caught.value)
