"""Certificates as values: making one, renewing it under its key, its fingerprint and pin.

`cryptography` is imported inside the functions: it takes a tenth of a second, and most commands and
most connections need none of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from tunnel.errors import StoreError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: Clients pin the key, so a certificate that runs out early protects none and only cuts them off.
LIFE = timedelta(days=3650)

#: As people use them: an underscore is common, and `*.` stands for one label.
_HOST_NAME = re.compile(r"(\*\.)?(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@attrs.frozen
class Certificate:
    """A self-signed certificate and its private key, both in PEM."""

    cert: bytes
    key: bytes = attrs.field(repr=False)


def make_certificate(common_name: str, alt_names: Iterable[str] = ()) -> Certificate:
    """A self-signed certificate for a name and any others, with a new key (ECDSA P-256).

    Args:
      common_name: a host name or address. It becomes one of the alternative names, for those are
        all that clients compare (RFC 9525 section 2.1).
      alt_names: further host names and addresses.

    Raises:
      StoreError: a name cannot be written into a certificate.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return _self_signed(key, [common_name, *alt_names], datetime.now(UTC))


def renew(
    pem: bytes, names: Iterable[str], *, within: timedelta, now: datetime
) -> Certificate | None:
    """A new certificate under the key of an old one; None if the old one lasts longer.

    Args:
      pem: the old certificate and its key.
      names: what the new one is for.
      within: how much time must be left to the old one.
      now: the time, with its time zone.

    Raises:
      StoreError: `pem` is not a certificate and its EC key.
    """
    key, until = _key_and_end(pem)
    return None if until > now + within else _self_signed(key, list(names), now)


def first_der(pem: bytes) -> bytes:
    """The first certificate in a PEM text, in DER: the one that a server shows.

    Raises:
      StoreError: there is none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError as error:
        raise StoreError("there is no certificate (-----BEGIN CERTIFICATE-----) in it") from error


def fingerprint(cert_der: bytes) -> str:
    """The SHA-256 of a certificate as `openssl x509 -fingerprint -sha256` prints it."""
    return hashlib.sha256(cert_der).digest().hex(":").upper()


def spki_pin(cert_der: bytes) -> str:
    """What a client pins: `sha256:` and the SHA-256 of the certificate's public key (SPKI, DER).

    Raises:
      StoreError: the bytes are not a certificate, or its key is of an unknown kind.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_der_x509_certificate(cert_der).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StoreError(f"cannot read the certificate's public key: {error}") from error
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(spki).hexdigest()}"


def validity(cert_der: bytes) -> tuple[datetime, datetime]:
    """From when until when a certificate is good.

    Raises:
      StoreError: the bytes are not a certificate.
    """
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(cert_der)
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError as error:
        raise StoreError(f"cannot read the certificate: {error}") from error


def _key_and_end(pem: bytes) -> tuple[ec.EllipticCurvePrivateKey, datetime]:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
        public = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError("there is no certificate with its key in it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or public != key.public_key():
        raise StoreError("the key and the certificate in it do not belong together")
    return key, certificate.not_valid_after_utc


def _self_signed(key: ec.EllipticCurvePrivateKey, names: list[str], now: datetime) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    wanted = list(dict.fromkeys(map(_general_name, names)))
    # X.520 gives the subject's name at most 64 characters; no client compares it.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = (
        x509.CertificateBuilder(subject, subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a client's clock may be slow
        .not_valid_after(now + LIFE)
    )
    for extension, critical in _extensions(key.public_key(), wanted):
        builder = builder.add_extension(extension, critical)
    return Certificate(
        builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _extensions(
    public: ec.EllipticCurvePublicKey, names: list[x509.GeneralName]
) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """What strict verifiers look for (RFC 5280 section 4.2), each with whether it is critical."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    yield x509.SubjectAlternativeName(names), False
    yield x509.BasicConstraints(ca=False, path_length=None), True
    yield x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
    yield x509.SubjectKeyIdentifier.from_public_key(public), False
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        in_ascii = name.encode("idna").decode()
    except UnicodeError:
        in_ascii = ""
    if not _HOST_NAME.fullmatch(in_ascii):
        raise StoreError(
            f"{name!r} cannot be a name in a certificate; "
            "give host names such as tunnel.example.org, or addresses such as 192.0.2.1"
        )
    return x509.DNSName(in_ascii)
