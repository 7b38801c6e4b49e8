"""Certificates of an authority made for one test, lying as QEMU looks for them."""

import datetime as dt
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class Authority:
    """Signs for whoever asks."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._own = self._signed(self._name, self._key, authority=True)

    def folder(self, folder: Path, purpose: str, name: str) -> str:
        """Fill a folder for one end ("server" or "client"), and return its path."""
        folder.mkdir(mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._signed(_named(name), key, purpose=purpose, name=name)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / "ca-cert.pem").write_bytes(_pem(self._own))
        (folder / f"{purpose}-cert.pem").write_bytes(_pem(own))
        (folder / f"{purpose}-key.pem").write_bytes(secret)
        return str(folder)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        purpose: str = "",
        name: str = "",
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(authority=authority), critical=True)
        )
        if purpose:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([PURPOSES[purpose]]), critical=False
            ).add_extension(x509.SubjectAlternativeName(_names(name)), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _names(name: str) -> list[x509.GeneralName]:
    """Return a name, and an address as an address too: libvirt takes it for nothing else."""
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    with suppress(ValueError):
        names.append(x509.IPAddress(ip_address(name)))
    return names


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
