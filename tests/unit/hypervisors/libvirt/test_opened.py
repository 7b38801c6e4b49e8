"""By which of libvirt's two SSH libraries a host is reached."""

from typing import Any

import pytest

from whimbrel.errors import HostUnreachable
from whimbrel.hypervisors.libvirt import connection

libvirt = pytest.importorskip("libvirt")

FIRST, SECOND = "qemu+libssh2://b.example/system", "qemu+libssh://b.example/system"
NOBODY, REFUSED = libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_AUTH_FAILED


def refusal(code: int) -> Exception:
    error: Exception = libvirt.libvirtError("refused")
    error.err = (code, 0, "refused", 2, None, None, None, 0, 0)  # type: ignore[attr-defined]
    return error


class Handle:
    """A connection that has nothing to tell."""

    def setKeepAlive(self, *_: int) -> None:  # noqa: N802 - libvirt's name
        pass

    def close(self) -> None:
        pass


def tried(monkeypatch: pytest.MonkeyPatch, answers: dict[str, int]) -> list[str]:
    """Let URIs be refused with these codes; returns where those that are tried will stand."""
    uris: list[str] = []

    def opened(uri: str) -> Any:
        uris.append(uri)
        if uri in answers:
            raise refusal(answers[uri])
        return Handle()

    monkeypatch.setattr(libvirt, "open", opened)
    return uris


@pytest.mark.parametrize(
    ("uri", "answers", "expected"),
    [
        (SECOND, {}, [FIRST]),
        (SECOND, {FIRST: REFUSED}, [FIRST, SECOND]),
        ("qemu+tls://b.example/system", {}, ["qemu+tls://b.example/system"]),
    ],
)
async def test_the_library_that_leaves_no_answer_lying_comes_first(
    monkeypatch: pytest.MonkeyPatch, uri: str, answers: dict[str, int], expected: list[str]
) -> None:
    uris = tried(monkeypatch, answers)
    opened = await connection.Connection.open("b", uri)
    await opened.close()
    assert uris == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [({FIRST: NOBODY}, [FIRST]), ({FIRST: REFUSED, SECOND: REFUSED}, [FIRST, SECOND])],
)
async def test_where_nobody_answers_the_other_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, int], expected: list[str]
) -> None:
    uris = tried(monkeypatch, answers)
    with pytest.raises(HostUnreachable):
        await connection.Connection.open("b", SECOND)
    assert uris == expected
