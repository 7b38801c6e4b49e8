"""Encryption of what leaves a QEMU: TLS by a key made for one move, or the user's certificates.

    key ──► VM's private folder, keys.psk ──► object tls-creds-psk ──► parameter tls-creds
            (0600 in 0700)                      destination: endpoint=server
                                                source:      endpoint=client

The key reaches QEMU as a file and by nothing else: no command line, no QMP message. GnuTLS
reads the source's when the object is made, so that file goes at once; the destination's it
reads anew at every handshake (tlscredspsk.c), so that one stays until the move is over.

Every object is tied to TLS 1.2 with AES-256-GCM, for two reasons. TLS 1.3 renews its keys by
itself after 2^24 records, about 34 GB of a plain stream, and GnuTLS may then break a connection
that is read at the same time (GnuTLS issue 1717; QEMU works around it from 10.1 on). And with
a pre-shared key TLS 1.3 can use ciphers with SHA-256 only, of which GnuTLS takes
ChaCha20-Poly1305: a fifth of the speed where the processor knows AES.
"""

from contextlib import suppress
from enum import StrEnum
from typing import Any

from whimbrel.errors import CommandRefused
from whimbrel.hypervisors.qemu.process import Process
from whimbrel.model.inventory import X509, MigrationAddress
from whimbrel.model.tls import FFDHE2048

USER = "qemu"
"""The name beside the key; both ends must say the same."""

PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM"
"""GnuTLS's priority string; QEMU adds the key exchanges with a pre-shared key."""

MIGRATION, NBD = "whimbrel-migration", "whimbrel-nbd"
"""Ids of the two objects, and names of the folders their files lie in."""


class Endpoint(StrEnum):
    """Which end of a connection a QEMU is."""

    SERVER = "server"
    CLIENT = "client"


async def migration_parameters(
    process: Process, address: MigrationAddress, endpoint: Endpoint
) -> dict[str, str]:
    """Make the credentials for one move, and return the migration parameters that use them.

    They are empty where the address is not encrypted. What an earlier move left is gone.

    Raises:
        CommandRefused: QEMU does not take them. Nothing of them is left.
    """
    await forget(process, MIGRATION)
    if not address.encrypted:
        return {}
    parameters = {"tls-creds": await _made(process, MIGRATION, address, endpoint)}
    if address.credentials and endpoint is Endpoint.CLIENT:
        parameters["tls-hostname"] = address.credentials.hostname or address.host
    return parameters


async def nbd_credentials(process: Process, address: MigrationAddress, endpoint: str) -> str:
    """Make the credentials for NBD, and return the id to name; empty: unencrypted.

    At the destination ("server") the id goes into nbd-server-start as "tls-creds", before
    anybody connects; at the source ("client") into the NBD node of blockdev-add, likewise as
    "tls-creds". `address` carries the migration's own key. May be called again for the next
    disk: connections that stand keep what they have. `forget` takes it away after the move.

    Raises:
        CommandRefused: QEMU does not take them. Nothing of them is left.
    """
    await forget(process, NBD)
    if not address.encrypted:
        return ""
    return await _made(process, NBD, address, Endpoint(endpoint))


async def forget(process: Process, *names: str) -> None:
    """Take credentials away, those of migration and NBD where none is named.

    Harmless where there are none. Connections that stand go on; new ones are not accepted.
    Raises `HostUnreachable` when QEMU has gone; the files are removed even so.
    """
    for name in names or (MIGRATION, NBD):
        await process.remove_private(name)
    if MIGRATION in names or not names:
        # A later move must not inherit them; empty means none to QEMU.
        nothing = {"tls-creds": "", "tls-hostname": ""}
        await process.monitor.execute("migrate-set-parameters", nothing)
    for name in names or (MIGRATION, NBD):
        with suppress(CommandRefused):  # there is none
            await process.monitor.execute("object-del", {"id": name})


async def refusal(process: Process) -> str:
    """Try a key on a QEMU, and return why it does not take it; empty when it does."""
    try:
        await _made(process, NBD, MigrationAddress("", key="00" * 32), Endpoint.SERVER)
    except CommandRefused as error:
        return error.what
    await forget(process, NBD)
    return ""


async def _made(process: Process, name: str, address: MigrationAddress, endpoint: Endpoint) -> str:
    described: dict[str, Any] = {"id": name, "endpoint": endpoint.value, "priority": PRIORITY}
    try:
        if address.credentials:
            described |= _certificates(address.credentials, endpoint)
        else:
            described |= await _key(process, name, address.key, endpoint)
        await process.monitor.execute("object-add", described)
    except BaseException:
        await process.remove_private(name)
        raise
    if endpoint is Endpoint.CLIENT:
        await process.remove_private(name)
    return name


async def _key(process: Process, name: str, key: str, endpoint: Endpoint) -> dict[str, Any]:
    path = await process.private_file(f"{name}/keys.psk", f"{USER}:{key}\n".encode())
    described = {"qom-type": "tls-creds-psk", "dir": path.rsplit("/", 1)[0]}
    if endpoint is Endpoint.CLIENT:
        return described | {"username": USER}
    # Without a group QEMU searches one, for up to a second.
    await process.private_file(f"{name}/dh-params.pem", FFDHE2048)
    return described


def _certificates(credentials: X509, endpoint: Endpoint) -> dict[str, Any]:
    server = endpoint is Endpoint.SERVER
    folder = credentials.destination if server else credentials.source
    return {"qom-type": "tls-creds-x509", "dir": folder, "verify-peer": True}
