"""Whose key it is, and what whoever has it may do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import attrs

from tunnel import limits
from tunnel.errors import Refused
from tunnel.model import RefusalCode
from tunnel.protocol.keys import Verifier
from tunnel.server.admission import Quota
from tunnel.server.rules import Rules
from tunnel.stats import Reason

#: Behind the name of a client that asks for one that belongs to another key.
_SHARED_KEY = " (shared key)"


@attrs.frozen(eq=False)
class Identity:
    """What a server knows of a key.

    Args:
      verifier: proofs are checked with it.
      rules: what clients with this key may publish.
      name: what they are called; None if they name themselves, for many share this key.
      max_proxies: how many proxies all of them together may have; None for any number.
      max_connections: how many visitors all of them together may have; None for any number.
    """

    verifier: Verifier
    rules: Rules
    name: str | None = None
    max_proxies: int | None = None
    max_connections: int | None = None
    #: Where their visitors are counted.
    quota: Quota = attrs.field(kw_only=True)

    @quota.default
    def _own_quota(self) -> Quota:
        return Quota(self.max_connections, Reason.CLIENT_FULL)

    def check_certificate(self, names: frozenset[str]) -> None:
        """See that a client's certificate is for this identity.

        Args:
          names: those in the certificate, see `certificate_names`.

        Raises:
          Refused: it is for another one. (The client has proved the key: it may know.)
        """
        if self.name is not None and self.name not in names:
            shown = ", ".join(sorted(names)) or "nobody"
            raise Refused(
                RefusalCode.AUTHENTICATION,
                f"the key belongs to {self.name} and the client certificate to {shown}: "
                "use a key and a certificate that belong together",
            )


def certificate_names(der: bytes) -> frozenset[str]:
    """Whom a certificate is for: its DNS names and URIs, or, if it has none, its common name.

    (RFC 6125 section 6.4.4: alternative names go before the common name.)
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        certificate = x509.load_der_x509_certificate(der)
        with contextlib.suppress(x509.ExtensionNotFound):
            alternatives = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
            names = (
                *alternatives.get_values_for_type(x509.DNSName),
                *alternatives.get_values_for_type(x509.UniformResourceIdentifier),
            )
            if names:
                return frozenset(names)
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return frozenset(str(name.value) for name in common)
    except ValueError:
        return frozenset()  # not even well-formed, whoever signed it


class Identities:
    """The keys that a server knows.

    Args:
      identities: no two with the same key.
    """

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._by_key = {identity.verifier.key_id: identity for identity in identities}
        self._names = {identity.name for identity in self._by_key.values()}

    def find(self, key_id: bytes) -> Identity | None:
        """What is known of a key and allowed with it; None if it is not known."""
        return self._by_key.get(key_id)

    def take_over_quotas(self, former: Identities) -> None:
        """Go on counting the visitors that are connected, in the place of former identities."""
        for key_id, identity in self._by_key.items():
            if (before := former.find(key_id)) is not None:
                before.quota.limit = identity.max_connections
                self._by_key[key_id] = attrs.evolve(identity, quota=before.quota)

    def verifier(self, key_id: bytes) -> Verifier | None:
        """What is known of a key; None if it is not known."""
        identity = self._by_key.get(key_id)
        return None if identity is None else identity.verifier

    def name(self, key_id: bytes, asked: str) -> str:
        """What a client with that key is called; never what the owner of another key is called."""
        own = self._by_key[key_id].name
        if own is not None:
            return own
        if asked in self._names:
            return asked[: limits.MAX_NAME_LENGTH - len(_SHARED_KEY)] + _SHARED_KEY
        return asked
