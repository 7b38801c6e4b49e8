"""What TLS costs on this host: CPU seconds for each record, and for each byte in it.

Both ends of a connection within this host, by this Python's own TLS with AES-256-GCM. QEMU has
another one (GnuTLS), which works the same way: each record framed and handed to the kernel by
itself, each byte enciphered once.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

_SUITE = "ADH-AES256-GCM-SHA384:@SECLEVEL=0"  # without certificates: nothing secret is sent
_SHORT, _LONG = 64, 16384
_RECORDS = {_SHORT: 3000, _LONG: 1500}
_TRIALS = 2
_WITHIN = 10.0
"""Seconds to connect and to shake hands."""
_CALLING = 0.6
"""Share of a record's time that is not this interpreter's.

Measured against QEMU 10.0.2 with GnuTLS 3.7: 2.8 and 5.2 microseconds for a page of a plain
stream (two records) at source and destination, 2.3 and 3.7 for one of multifd (one record),
where this module without the share told 4.5 and 7.3, 2.7 and 4.6.
"""


def cipher(group: bytes) -> dict[str, Any] | None:
    """Return the cost of TLS, None where this Python's TLS does not know the suite.

    "encrypt" and "decrypt" each: bytes per second and core, and CPU seconds for each record.

    Args:
        group: A Diffie-Hellman group (PEM).
    """
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(group)
            file.flush()
            server, client = _context(server=True), _context(server=False)
            server.load_dh_params(file.name)
        timed = {size: _best(server, client, size) for size in (_SHORT, _LONG)}
    except (ssl.SSLError, AttributeError):
        return None
    return {
        name: _split(timed[_SHORT][end], timed[_LONG][end])
        for end, name in enumerate(("encrypt", "decrypt"))
    }


def _split(short: float, long: float) -> dict[str, float]:
    byte = max((long - short) / (_LONG - _SHORT), 1e-12)
    return {"speed": 1 / byte, "record": max(0.0, short - _SHORT * byte) * _CALLING}


def _context(*, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # both ends are this thread and its neighbour
    context.set_ciphers(_SUITE)
    return context


def _best(server: ssl.SSLContext, client: ssl.SSLContext, size: int) -> tuple[float, float]:
    tries = [_timed(server, client, size, _RECORDS[size]) for _ in range(_TRIALS)]
    return min(sent for sent, _ in tries), min(received for _, received in tries)


def _timed(
    server: ssl.SSLContext, client: ssl.SSLContext, size: int, records: int
) -> tuple[float, float]:
    """Return the CPU seconds of sending and of receiving one record."""
    spent: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = threading.Thread(
            target=_send, args=(client, listening.getsockname(), size, records, spent)
        )
        sender.start()
        try:
            received = _receive(server, listening, size * records)
        finally:
            sender.join()
    if not spent:
        raise ssl.SSLError("no handshake")
    return spent[0] / records, received / records


def _send(
    context: ssl.SSLContext, address: tuple[str, int], size: int, records: int, spent: list[float]
) -> None:
    content = memoryview(bytes(size))
    with (
        suppress(OSError),  # the other end has said what is wrong
        socket.create_connection(address, _WITHIN) as plain,
        context.wrap_socket(plain) as connection,
    ):
        connection.settimeout(None)  # looking at a clock for every record would cost, too
        send = connection.send
        began = time.thread_time()
        for _ in range(records):
            send(content)
        spent.append(time.thread_time() - began)


def _receive(context: ssl.SSLContext, listening: socket.socket, size: int) -> float:
    buffer = memoryview(bytearray(_LONG))
    listening.settimeout(_WITHIN)
    plain, _ = listening.accept()
    plain.settimeout(_WITHIN)
    with context.wrap_socket(plain, server_side=True) as connection:
        connection.settimeout(None)
        receive = connection.recv_into
        began = time.thread_time()
        while size > 0 and (got := receive(buffer)):
            size -= got
        return time.thread_time() - began


QUESTIONS = {"cipher": cipher}
