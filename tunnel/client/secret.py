"""The secret of a proxy: whose guests come shows that he knows it, and then so does its owner."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from tunnel import limits, store
from tunnel.config import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.errors import ConfigError, Fault, TunnelError
from tunnel.protocol.preamble import Preamble
from tunnel.protocol.proofs import VISIT_NONCE_SIZE, VisitTranscript, visit_key


def visit_keys(
    config: ClientConfig, source: Path | None
) -> tuple[list[bytes | None], list[bytes | None]]:
    """The keys of the secrets of all proxies, and of all visitors; None for those without.

    Each secret that a person made up takes a tenth of a second, however often it is used.

    Args:
      config: what the file says.
      source: the file, which its paths are relative to.

    Raises:
      ConfigError: one cannot be used; says which.
    """
    known: dict[str, bytes] = {}

    def keys(table: str, entries: Iterable[ProxyConfig | VisitorConfig]) -> Iterator[bytes | None]:
        for index, entry in enumerate(entries):
            try:
                secret = _secret(entry, store.directory_of(source))
                if secret is not None and secret not in known:
                    known[secret] = visit_key(secret)
            except TunnelError as error:
                fault = Fault(None, f"{table}[{index}].visitor_secret", str(error))
                raise ConfigError(str(source or "configuration"), [fault]) from error
            yield None if secret is None else known[secret]

    return list(keys("proxies", config.proxies)), list(keys("visitors", config.visitors))


def _secret(entry: ProxyConfig | VisitorConfig, beside: Path) -> str | None:
    if entry.visitor_secret_file is None:
        return entry.visitor_secret
    return store.read_auth_key(store.resolve(entry.visitor_secret_file, beside=beside))


def _nobody() -> None:
    """Whom a nonce concerns while there is no session."""


@attrs.define(eq=False)
class Guard:
    """What a proxy with a secret asks of its guests. Every proof counts once.

    Whoever passes a proof on, as the server does, could do so twice. So what was shown is kept, as
    long as the nonce that it was made for is good. That is replaced after `limits.VISIT_PROOFS`,
    and no longer good after twice as many, or when its successor is replaced; so this is bounded.

    Args:
      key: from the secret by `visit_key`; None for a proxy without.
    """

    _key: bytes | None = attrs.field(default=None, repr=False)
    #: What the server calls this client.
    _owner: str = attrs.field(default="", init=False)
    #: Told when there is another nonce in a session.
    renewed: Callable[[], None] = attrs.field(default=_nobody, init=False)
    #: By nonce, the newest last, the visitors' nonces of the proofs that were shown.
    _shown: dict[bytes, set[bytes]] = attrs.field(factory=dict, init=False, repr=False)

    def begin(self, owner: str) -> None:
        """A session begins in which the server calls this client so; no earlier proof counts."""
        self._owner = owner
        self._shown.clear()
        if self._key is not None:
            self._shown[secrets.token_bytes(VISIT_NONCE_SIZE)] = set()

    def end(self) -> None:
        """The session is over."""
        self._shown.clear()
        self.renewed = _nobody

    def become(self, other: Guard) -> None:
        """Ask for the other's secret from now on."""
        if self._key != other._key:
            self._key = other._key
            self.begin(self._owner)

    @property
    def asks(self) -> bool:
        """True if there is a secret."""
        return self._key is not None

    @property
    def nonce(self) -> bytes:
        """What proofs are to be made for now; empty if none is asked for."""
        return next(reversed(self._shown), b"")

    def answer(self, proxy: str, port: int, guest: Preamble) -> bytes | str:
        """The answer to a proof, to be sent before anything else; or why there is none.

        Args:
          proxy, port: what is visited, as configured.
          guest: who comes, with the proof.
        """
        if not guest.proof:
            return "its client showed no visitor_secret"
        nonce, proof = guest.proof[:VISIT_NONCE_SIZE], guest.proof[VISIT_NONCE_SIZE:]
        key = self._key or b""
        for own, shown in self._shown.items():
            about = VisitTranscript(self._owner, proxy, port, guest.guest or "", own, nonce)
            if hmac.compare_digest(proof, about.visit_proof(key)):
                if nonce in shown or len(shown) >= 2 * limits.VISIT_PROOFS:
                    return "its proof is used up: it was shown before, or is too old"
                shown.add(nonce)
                self._renew_if_used_up()
                return about.visited_proof(key)
        return "its client showed another visitor_secret, or a proof of a session that is over"

    def _renew_if_used_up(self) -> None:
        former, *newer = self._shown
        if len(self._shown[newer[-1] if newer else former]) < limits.VISIT_PROOFS:
            return
        if newer:
            del self._shown[former]
        self._shown[secrets.token_bytes(VISIT_NONCE_SIZE)] = set()
        self.renewed()
