"""Whether what a move sends is encrypted, with the reason, and the key that is made for it.

    never ─────────────────────────────────────────► open
    always, or auto over a link not called trusted ─┬► encrypted
                                                    └► refused, where it cannot be
    auto over links that both hosts call trusted ──► open

A move that ought to be encrypted and cannot be is refused, never sent openly instead.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.model.inventory import X509, Capability, Host, MigrationAddress, MigrationLink
from whimbrel.model.method import Method
from whimbrel.model.policy import Encryption
from whimbrel.model.wording import listed, verb

KEY_BYTES = 32
"""Random bytes of a key: as many as AES-256 has."""


@dataclass(frozen=True)
class Encrypted:
    """Memory and disks travel encrypted; `reason` says by what, and why."""

    reason: str


@dataclass(frozen=True)
class Open:
    """They travel unencrypted.

    Attributes:
        reason: Why, in words that say so.
        exposed: Whether somebody who was not called trusted might read them.
    """

    reason: str
    exposed: bool


@dataclass(frozen=True)
class Refused:
    """They must travel encrypted and cannot.

    Attributes:
        reason: What is in the way.
        remedy: What to do about it.
    """

    reason: str
    remedy: str


Ruling = Encrypted | Open | Refused
"""What was decided about encryption."""


def ruled(
    policy: Encryption,
    links: Sequence[MigrationLink],
    source: frozenset[Capability],
    destination: frozenset[Capability],
    *,
    method: Method = Method.AUTO,
    credentials: X509 | None = None,
) -> Ruling:
    """Decide whether a move is encrypted.

    Args:
        policy: What the user asks for.
        links: The links the move uses, at both ends; without any, nothing is trusted.
        source: What the source can do.
        destination: What the destination can do.
        method: The one that a person named; `auto` leaves out what cannot be encrypted.
        credentials: The user's certificates; None: a key is made for the move.
    """
    exposed = not links or not all(link.trusted for link in links)
    if policy is Encryption.NEVER:
        return _openly_by_will(links, exposed=exposed)
    if policy is Encryption.AUTO and not exposed:
        return Open(
            f"Memory and disks travel unencrypted: both hosts call {_named(links)} trusted.",
            exposed=False,
        )
    why = _why(policy, links)
    hindrance = _hindrance(source, destination, method, credentials)
    if hindrance:
        return Refused(f"This move must be encrypted, since {why}, but {hindrance}.", _REMEDY)
    by = "the user's certificates" if credentials else "a key made for this move alone"
    private = "" if policy is Encryption.ALWAYS else " (if the network is private: trusted = true)"
    return Encrypted(f"Memory and disks travel encrypted by {by}, since {why}{private}.")


def secured(
    address: MigrationAddress, ruling: Ruling, credentials: X509 | None = None
) -> MigrationAddress:
    """Return the address with what encrypts the way there: certificates, or a fresh random key.

    To be called once per move. The tuning says `encrypted` as well (`Tuning.encrypted`), so
    that a key that gets lost on its way cannot turn into an open move.
    """
    if not isinstance(ruling, Encrypted):
        return replace(address, key="", credentials=None)
    if credentials is not None:
        return replace(address, key="", credentials=credentials)
    return replace(address, key=new_key(), credentials=None)


def credentials_between(source: Host, destination: Host) -> X509 | None:
    """Return the user's certificates for a move; None unless both hosts name a folder of them."""
    if source.certificates is None or destination.certificates is None:
        return None
    return X509(source.certificates, destination.certificates, destination.certificate_name)


def new_key() -> str:
    """Return a random key as hexadecimal digits."""
    return secrets.token_hex(KEY_BYTES)


_REMEDY = (
    "If the network is private, say so at these links of both hosts (trusted = true); else choose "
    "another method, or allow it: --encryption never."
)


def _openly_by_will(links: Sequence[MigrationLink], *, exposed: bool) -> Open:
    if not exposed:
        return Open("Memory and disks travel unencrypted, as was asked for.", exposed=False)
    return Open(
        f"Memory and disks travel UNENCRYPTED, as was asked for, although {_strange(links)}: "
        "whoever reads that network reads the guest.",
        exposed=True,
    )


def _why(policy: Encryption, links: Sequence[MigrationLink]) -> str:
    if policy is Encryption.ALWAYS:
        return "encryption is wanted for every move"
    return _strange(links)


def _strange(links: Sequence[MigrationLink]) -> str:
    """Say which addresses are in the way of an open move."""
    strange = [link for link in links if not link.trusted]
    is_ = verb([link.address for link in strange], "is", "are") if strange else "is"
    return f"{_named(strange)} {is_} not called trusted in whimbrel.toml"


def _named(links: Sequence[MigrationLink]) -> str:
    return listed(link.address for link in links) or "the migration network"


def _hindrance(
    source: frozenset[Capability],
    destination: frozenset[Capability],
    method: Method,
    credentials: X509 | None,
) -> str:
    if method is Method.RDMA:
        return "QEMU cannot encrypt RDMA"
    needed = Capability.TLS_X509 if credentials else Capability.TLS_PSK
    sides = {"source": source, "destination": destination}
    lacking = [f"the {side}" for side, able in sides.items() if needed not in able]
    return f"QEMU at {' and '.join(lacking)} has no {needed}" if lacking else ""
