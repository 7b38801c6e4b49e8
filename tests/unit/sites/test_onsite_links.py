"""The two ends of a link's measurement, over loopback."""

import socket
import threading
from typing import Any

import pytest

from whimbrel.sites.onsite import links

HERE = "127.0.0.1"


@pytest.mark.parametrize(("streams", "as_qemu"), [(1, True), (1, False), (3, True)])
def test_both_ends_tell_what_went_through(streams: int, *, as_qemu: bool) -> None:
    wanted: dict[str, Any] = {
        "streams": streams,
        "seconds": 0.1,
        "warm_up": 0.02,
        "as_qemu": as_qemu,
    }
    there = links.link_listen(HERE, **wanted)
    told: dict[str, float] = {}
    sender = threading.Thread(target=lambda: told.update(links.link_send(HERE, **there, **wanted)))
    sender.start()
    counted = links.link_counted(there["key"])
    sender.join()
    links.link_end(there["key"])
    assert counted["received"] > 1 << 20
    assert counted["seconds"] >= 0.1
    assert counted["spread"] >= 0
    assert 0 < told["latency"] < 1
    assert told["buffered"] >= 0


def test_a_caller_without_the_key_is_hung_up_on_and_does_not_count() -> None:
    wanted: dict[str, Any] = {"seconds": 0.05, "warm_up": 0.0}
    there = links.link_listen(HERE, **wanted)
    with socket.create_connection((HERE, there["port"])) as stranger:
        stranger.sendall(b"n" * 16)
        assert stranger.recv(1) == b""
    sender = threading.Thread(target=lambda: links.link_send(HERE, **there, **wanted))
    sender.start()
    assert links.link_counted(there["key"])["received"] > 0
    sender.join()
    links.link_end(there["key"])


def test_it_listens_on_the_named_address_only() -> None:
    there = links.link_listen("127.0.0.2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, there["port"]), timeout=5)
    links.link_end(there["key"])


def test_after_its_end_nothing_listens_and_who_waited_hears_of_it() -> None:
    there = links.link_listen(HERE)
    listening = links._LISTENING[there["key"].hex()]
    links.link_end(there["key"])
    links.link_end(there["key"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, there["port"]), timeout=5)
    with pytest.raises((OSError, ValueError)):
        listening.counted()


def test_a_sender_that_goes_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PATIENCE", 0.1)
    there = links.link_listen(HERE)
    with socket.create_connection((HERE, there["port"])) as first:
        first.sendall(there["key"])
    with socket.create_connection((HERE, there["port"])) as silent:
        silent.sendall(there["key"])
        with pytest.raises(OSError, match=r"nothing arrives|timed out"):
            links.link_counted(there["key"])
    links.link_end(there["key"])


def test_an_address_that_is_not_ours_is_refused_with_the_kernels_words() -> None:
    with pytest.raises(OSError, match="Cannot assign"):
        links.link_listen("192.0.2.7")


def test_the_way_to_an_address_begins_at_one_of_ours() -> None:
    assert links.link_route("127.0.0.9") == HERE


def test_the_spread_is_none_where_all_parts_are_alike_and_grows_with_their_difference() -> None:
    even = [(float(n), n * 100) for n in range(6)]
    assert links._spread(even) == 0
    uneven = [(0.0, 0), (1.0, 50), (2.0, 200), (3.0, 250), (4.0, 400), (5.0, 450)]
    assert links._spread(uneven) > 0.1
