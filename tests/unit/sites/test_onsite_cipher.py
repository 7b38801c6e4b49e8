"""What TLS costs on a host, measured with its own Python."""

import ssl

import pytest

from whimbrel.model.tls import FFDHE2048
from whimbrel.sites.onsite import cipher as module
from whimbrel.sites.onsite.cipher import cipher


def test_both_directions_cost_something_for_each_byte_and_each_record() -> None:
    told = cipher(FFDHE2048)
    assert told is not None
    for end in ("encrypt", "decrypt"):
        assert told[end]["speed"] > 1e6
        assert 0 <= told[end]["record"] < 1e-3


def test_a_tls_that_does_not_know_the_suite_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SUITE", "NO-SUCH-SUITE")
    assert cipher(FFDHE2048) is None


def test_a_group_that_is_none_is_told_as_unknown() -> None:
    assert cipher(b"no group") is None


def test_the_sample_is_split_into_bytes_and_records() -> None:
    split = module._split(64 * 1e-9 + 2e-6, 16384 * 1e-9 + 2e-6)
    assert split["speed"] == pytest.approx(1e9)
    assert split["record"] == pytest.approx(2e-6 * module._CALLING)


def test_the_suite_is_known_here() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(module._SUITE)
    assert any("AES256-GCM" in str(each["name"]) for each in context.get_ciphers())
