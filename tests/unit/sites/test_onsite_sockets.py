"""Connections of another process, cut from outside."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from whimbrel.sites.onsite.sockets import _address, cut_connections, limit_silence

TALKS = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print("connected", flush=True)
    print(len(connection.recv(1)), flush=True)
"""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def talking(server: socket.socket) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", TALKS, str(server.getsockname()[1])]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_a_process_that_waits_on_a_silent_peer_sees_the_connection_end(
    server: socket.socket,
) -> None:
    with talking(server) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        assert cut_connections(process.pid, server.getsockname()[1]) == 1
        assert process.stdout.readline() == "0\n"
        assert process.wait(10) == 0


def test_connections_to_other_ports_stand(server: socket.socket) -> None:
    with talking(server) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        other = server.getsockname()[1] ^ 1
        assert cut_connections(process.pid, other) == 0
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"x")
        assert process.stdout.readline() == "1\n"


SENDS = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    print("connected", flush=True)
    sys.stdin.readline()
    print(connection.getsockopt(socket.IPPROTO_TCP, 18), flush=True)
    try:
        while True:
            connection.sendall(b"x" * 65536)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize("known", [True, False])
def test_a_process_whose_peer_takes_nothing_more_is_told_after_the_limit(
    server: socket.socket, *, known: bool
) -> None:
    port = server.getsockname()[1]
    words = [sys.executable, "-c", SENDS, str(port)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "connected\n"
        assert limit_silence(process.pid, 0, 0.2, "127.0.0.9") == 0
        assert limit_silence(process.pid, port if known else 0, 0.4, "127.0.0.1") == 1
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "400\n"
        assert process.stdout.readline() == "TimeoutError\n"
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("end", "address"),
    [
        ("0200630A:08AE", "10.99.0.2"),
        ("0000000000000000FFFF00000200630A:08AE", "10.99.0.2"),
        ("000080FE00000000FF005450A0EC0F06:0016", "fe80::5054:ff:60f:eca0"),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="written as they lie in memory")
def test_an_address_is_read_as_the_kernel_writes_it(end: str, address: str) -> None:
    assert str(_address(end)) == address


def test_a_process_that_has_gone_is_an_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(10)
    with pytest.raises(OSError, match=str(done.pid)):
        cut_connections(done.pid, 1)
