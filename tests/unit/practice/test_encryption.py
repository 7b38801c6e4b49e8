"""When a move is encrypted, and what is said about it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.inventory import X509, Capability, Host, MigrationAddress, MigrationLink
from whimbrel.model.method import Method
from whimbrel.model.plain import plain
from whimbrel.model.policy import Encryption
from whimbrel.practice.encryption import (
    KEY_BYTES,
    Encrypted,
    Open,
    Refused,
    Ruling,
    credentials_between,
    new_key,
    ruled,
    secured,
)

ABLE = frozenset({Capability.TLS_PSK, Capability.TLS_X509})
TRUSTED = [MigrationLink("10.0.0.1", trusted=True), MigrationLink("10.0.0.2", trusted=True)]
HALF = [TRUSTED[0], MigrationLink("10.0.0.2")]
ADDRESS = MigrationAddress("10.0.0.2", 4444)
CERTIFICATES = X509("/etc/tls/a", "/etc/tls/b", "b.example")


def rule(policy: Encryption, links: list[MigrationLink], method: Method = Method.AUTO) -> Ruling:
    return ruled(policy, links, ABLE, ABLE, method=method)


def test_a_link_that_both_hosts_trust_is_used_openly_and_said_so() -> None:
    ruling = rule(Encryption.AUTO, TRUSTED)
    assert isinstance(ruling, Open)
    assert not ruling.exposed
    assert "unencrypted" in ruling.reason


def test_by_default_everything_else_is_encrypted() -> None:
    for links in (HALF, [HALF[1]], []):
        assert isinstance(rule(Encryption.AUTO, links), Encrypted)
    assert isinstance(rule(Encryption.ALWAYS, TRUSTED), Encrypted)


def test_the_reason_names_the_link_that_is_not_trusted() -> None:
    ruling = rule(Encryption.AUTO, HALF)
    assert isinstance(ruling, Encrypted)
    assert "10.0.0.2 is not called trusted" in ruling.reason
    assert "10.0.0.1" not in ruling.reason


def test_two_links_are_named_in_one_sentence_that_says_what_to_do() -> None:
    strangers = [MigrationLink("10.0.0.2"), MigrationLink("10.0.0.1"), MigrationLink("10.0.0.2")]
    for policy in (Encryption.AUTO, Encryption.NEVER):
        ruling = rule(policy, strangers)
        assert "10.0.0.2 and 10.0.0.1 are not called trusted in whimbrel.toml" in ruling.reason
        assert ruling.reason.count(". ") == 0
    assert "trusted = true" in rule(Encryption.AUTO, strangers).reason


def test_certificates_are_used_where_both_hosts_name_their_folder() -> None:
    a, b = (Host(name, "qemu:///local", certificates=f"/tls/{name}") for name in "ab")
    b = replace(b, certificate_name="b.example")
    assert credentials_between(a, b) == X509("/tls/a", "/tls/b", "b.example")
    assert credentials_between(b, a) == X509("/tls/b", "/tls/a")
    for one, other in ((a, replace(b, certificates=None)), (replace(a, certificates=None), b)):
        assert credentials_between(one, other) is None


def test_never_over_a_strange_link_says_loudly_that_it_is_unencrypted() -> None:
    ruling = rule(Encryption.NEVER, HALF)
    assert isinstance(ruling, Open)
    assert ruling.exposed
    assert "UNENCRYPTED" in ruling.reason


def test_rdma_is_refused_where_a_move_must_be_encrypted() -> None:
    ruling = rule(Encryption.AUTO, HALF, Method.RDMA)
    assert isinstance(ruling, Refused)
    assert "RDMA" in ruling.reason
    assert "trusted = true" in ruling.remedy
    assert isinstance(rule(Encryption.AUTO, TRUSTED, Method.RDMA), Open)


def test_a_host_that_cannot_encrypt_is_named() -> None:
    ruling = ruled(Encryption.AUTO, HALF, ABLE, frozenset())
    assert isinstance(ruling, Refused)
    assert "the destination has no tls-psk" in ruling.reason
    assert "the source" not in ruling.reason


@given(
    policy=st.sampled_from(Encryption),
    links=st.lists(
        st.builds(MigrationLink, st.just("10.0.0.9"), trusted=st.booleans()), max_size=3
    ),
    source=st.frozensets(st.sampled_from(sorted(ABLE))),
    destination=st.frozensets(st.sampled_from(sorted(ABLE))),
    method=st.sampled_from(Method),
    credentials=st.sampled_from([None, CERTIFICATES]),
)
def test_nothing_goes_openly_but_by_will_or_trust(
    *,
    policy: Encryption,
    links: list[MigrationLink],
    source: frozenset[Capability],
    destination: frozenset[Capability],
    method: Method,
    credentials: X509 | None,
) -> None:
    ruling = ruled(policy, links, source, destination, method=method, credentials=credentials)
    trusted = bool(links) and all(link.trusted for link in links)
    if isinstance(ruling, Open):
        assert policy is Encryption.NEVER or (policy is Encryption.AUTO and trusted)
        assert ruling.exposed is not trusted
    if isinstance(ruling, Encrypted):
        needed = Capability.TLS_X509 if credentials else Capability.TLS_PSK
        assert needed in source & destination
        assert method is not Method.RDMA
    there = secured(ADDRESS, ruling, credentials)
    assert there.encrypted is isinstance(ruling, Encrypted)


def test_every_move_has_a_key_of_its_own() -> None:
    keys = {secured(ADDRESS, Encrypted("")).key for _ in range(20)}
    assert len(keys) == 20
    assert all(len(bytes.fromhex(key)) == KEY_BYTES for key in keys)


def test_certificates_stand_in_for_a_key() -> None:
    there = secured(ADDRESS, Encrypted(""), CERTIFICATES)
    assert not there.key
    assert there.credentials == CERTIFICATES


def test_a_key_is_neither_shown_nor_written_down() -> None:
    there = secured(ADDRESS, Encrypted(""))
    assert there.key
    for said in (repr(there), str(there), str(plain(there))):
        assert there.key not in said


def test_keys_are_hexadecimal() -> None:
    assert set(new_key()) <= set("0123456789abcdef")
