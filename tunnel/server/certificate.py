"""The certificate that a server shows: read at the start, and again when its files change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from tunnel import limits, store
from tunnel.certificates import spki_pin, validity
from tunnel.errors import StoreError
from tunnel.eventlog import logged_events
from tunnel.events import CertificateExpires, CertificateRead, CertificateUnusable, EventStream
from tunnel.net.contexts import ServerTls, server_tls

_WARNING = timedelta(seconds=limits.CERTIFICATE_WARNING)
_REMINDER = timedelta(seconds=limits.CERTIFICATE_REMINDER)


@attrs.frozen
class CertificateFiles:
    """Where a certificate and its key are.

    Args:
      cert: PEM, the server's own certificate first.
      key: PEM; may be the same file.
      own: the server made them itself, and renews them under the same key.
      kept: False if the files are gone once they were read.
      client_ca: PEM with the authorities of clients' certificates; None if clients need none.
    """

    cert: Path
    key: Path
    own: bool = False
    kept: bool = True
    client_ca: Path | None = None


def _utc() -> datetime:
    return datetime.now(UTC)


class CertificateKeeper:
    """Shows a certificate, and the next one when its files change; it never shows a broken one.

    Args:
      files: read now, and looked at by `look`.
      events: told of what was read, of what cannot be used, and of the certificate's end.
      now: the time, with its time zone.

    Raises:
      StoreError: they cannot be used. Later faults are events, and what was shown stays.
    """

    def __init__(
        self,
        files: CertificateFiles,
        *,
        events: EventStream | None = None,
        now: Callable[[], datetime] = _utc,
    ) -> None:
        self._files = files
        self._events = events or logged_events()
        self._now = now
        # Looked at before they are read: what changes meanwhile is read again.
        self._seen = self._look_at_files()
        self._failing = False
        self._renew_at = self._warn_at = datetime.min.replace(tzinfo=UTC)
        #: What new connections are shown. Swapped whole: whoever holds the former one keeps it.
        self.shown = server_tls(files.cert, files.key, files.client_ca)
        self.pin = spki_pin(self.shown.leaf)
        self.until = validity(self.shown.leaf)[1]
        self._warn_of_the_end()

    def look(self, *, asked: bool = False) -> ServerTls:
        """Read the files again if they changed; returns what is to be shown from now on.

        Args:
          asked: read them in any case, and tell what came of it.
        """
        if self._files.kept:
            self._renew()
            found = self._look_at_files()
            changed = found != self._seen
            # What could not be used is tried again and again, and talked about once: a file may
            # have been half-written, or be good only from the next hour on.
            if asked or changed or self._failing:
                self._read(changed=changed, say=asked or changed)
            self._seen = found
        self._warn_of_the_end()
        return self.shown

    def _look_at_files(self) -> list[tuple[int, ...] | None]:
        files = (self._files.cert, self._files.key, self._files.client_ca)
        return [store.file_identity(path) for path in files if path is not None]

    def _read(self, *, changed: bool, say: bool) -> None:
        try:
            tls = server_tls(self._files.cert, self._files.key, self._files.client_ca)
            pin, until = spki_pin(tls.leaf), self._end_of(tls)
        except StoreError as error:
            self._failing = True
            if say:
                self._events.emit(CertificateUnusable(str(error)))
            return
        self._events.emit(
            CertificateRead(pin, _day(until), changed or self._failing, pin == self.pin)
        )
        self._failing = False
        self._warn_at = self._now()
        self.shown, self.pin, self.until = tls, pin, until

    def _end_of(self, tls: ServerTls) -> datetime:
        """Until when a certificate is good; raises StoreError if it is not good now."""
        since, until = validity(tls.leaf)
        if until <= self._now():
            raise StoreError(f"the certificate {self._files.cert} expired on {_day(until)}")
        if since > self._now():
            raise StoreError(f"the certificate {self._files.cert} is good from {since} on only")
        return until

    def _renew(self) -> None:
        now = self._now()
        if not self._files.own or now < self._renew_at or self.until > now + store.RENEW_BEFORE:
            return
        self._renew_at = now + _REMINDER
        try:
            store.renew_own_certificate(self._files.cert, now)
        except StoreError as error:
            self._events.emit(CertificateUnusable(str(error)))

    def _warn_of_the_end(self) -> None:
        now = self._now()
        if now < self._warn_at or self.until - now > _WARNING:
            return
        self._warn_at = now + _REMINDER
        days = None if self.until <= now else (self.until - now).days
        self._events.emit(CertificateExpires(str(self._files.cert), _day(self.until), days))


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
