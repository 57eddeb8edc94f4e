"""Files: where state is kept, how it is written, and the keys and certificates in it.

Secrets are in files that only their owner can read, written whole or not at all; no name of a file
and no error has one in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from tunnel import limits, remedies
from tunnel.certificates import (
    Certificate,
    fingerprint,
    first_der,
    make_certificate,
    renew,
    spki_pin,
)
from tunnel.errors import StoreError
from tunnel.protocol.keys import KEY_SIZE, generate_key

__all__ = [
    "OWN_NAMES",
    "Certificate",
    "File",
    "client_id",
    "directory_of",
    "exposed",
    "file_identity",
    "fingerprint",
    "leaf_der",
    "make_certificate",
    "own_certificate",
    "own_key",
    "read_auth_key",
    "renew_own_certificate",
    "resolve",
    "spki_pin",
    "state_directory",
    "write_atomic",
]

logger = logging.getLogger(__name__)

#: A key file is one line; what is larger is another file, or a device that never ends.
MAX_KEY_FILE = 4 * limits.KIB
#: Early, since it costs nothing: the key stays, and with it what clients pin. A state directory
#: that cannot be written for months does no harm then.
RENEW_BEFORE = timedelta(days=365)
#: What a certificate is for if no name is given: true of every machine, so it tells nothing.
OWN_NAMES = ("localhost", "127.0.0.1", "::1")

_MAKE_KEY = "make one with: tls-tunnel keygen"
_CLIENT_ID = re.compile(r"[0-9a-f]{32}\n?")


# --- Places ---------------------------------------------------------------------------------


def directory_of(source: Path | None) -> Path:
    """What a configuration's paths are relative to: its file's directory, else the working one."""
    return Path.cwd() if source is None else source.absolute().parent


def resolve(path: str, *, base: Path) -> Path:
    """A path as a configuration gives it, made absolute, with `~` expanded.

    Args:
      path: what the configuration says.
      base: the directory that it is relative to.

    Raises:
      StoreError: the home directory that `~` means is not known.
    """
    try:
        return base.absolute() / Path(path).expanduser()
    except RuntimeError as error:
        raise StoreError(
            f"cannot tell what {path} means: {error}; write the path in full"
        ) from error


def state_directory(configured: str | None, *, base: Path, environ: Mapping[str, str]) -> Path:
    """Where a process keeps what it must remember; it need not exist yet.

    What the configuration says, else what systemd gives (`StateDirectory=`, systemd.exec(5)), else
    the XDG state directory, else, where there is no home, `.tls-tunnel` in the directory `base`.

    Args:
      configured: the key `state_dir`, if it is set.
      base: the configuration's directory.
      environ: the environment.

    Raises:
      StoreError: see `resolve`.
    """
    if configured:
        return resolve(configured, base=base)
    if given := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(given)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # XDG Base Directory Specification: a relative one must be ignored
        return xdg / "tls-tunnel"
    home = environ.get("HOME") or os.path.expanduser("~")
    if os.path.isabs(home):
        return Path(home, ".local", "state", "tls-tunnel")
    return base.absolute() / ".tls-tunnel"


@attrs.frozen
class File:
    """A file to be written.

    Args:
      path: where; a file that is there is replaced.
      data: all of its contents.
      mode: its permissions in the end; they are 0600 until then.
    """

    path: Path
    data: bytes = attrs.field(repr=False)
    mode: int = 0o600


def write_atomic(*files: File) -> None:
    """Write files whole or not at all; none ever has wider permissions than its mode.

    Each is written beside its place, flushed to the disk (fsync) and renamed, which is atomic
    (POSIX rename). Of several files all are written before the first is renamed.

    Raises:
      StoreError: one of them cannot be written; what was there before still is.
    """
    try:
        _write_atomic(files)
    except OSError as error:
        raise StoreError(
            f"cannot write {' and '.join(str(file.path) for file in files)}: {_reason(error)}; "
            "check that the directory exists, is yours and has space"
        ) from error


def exposed(path: Path) -> str | None:
    """What is wrong with the permissions of a file that holds a secret; None if nothing is.

    Group members may read: a service that runs under its own group needs that.
    """
    if os.name != "posix":
        return None
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if not mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return None
    return (
        f"{path} holds a secret and its mode {mode:04o} lets others read or change it; "
        f"run: chmod 600 {path}"
    )


def file_identity(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written, or another one put in its place; None if there is none.

    A file that was moved away and back has the same identity as before.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def read_auth_key(path: Path) -> str:
    """The key in a key file, without the newline at its end. Logs a warning if others can read it.

    Raises:
      StoreError: it cannot be read, or holds no key that can be used.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise StoreError(remedies.KEY_FILE.text(path=path, reason=_reason(error))) from error
    key = data.decode(errors="replace").removesuffix("\n").removesuffix("\r")
    if problem := _key_problem(data, key):
        raise StoreError(f"the key file {path} {problem}; {_MAKE_KEY}")
    if problem := exposed(path):
        logger.warning("Key file is exposed", extra={"problem": problem})
    return key


def own_key(state_dir: Path) -> str:
    """The key of a server that was given none: made once and kept in `state_dir`.

    Where it cannot be kept, a warning is logged and the key lasts as long as the process.

    Raises:
      StoreError: the file is there and damaged.
    """
    path = state_dir / "server.key"
    fresh = generate_key(secrets.token_bytes(KEY_SIZE))
    try:
        if _read_state(path, limit=1) is None:
            _keep(path, f"{fresh}\n".encode())
    except OSError as error:
        _cannot_keep(path, error, "the next start has another key")
        return fresh
    return read_auth_key(path)


def _key_problem(data: bytes, key: str) -> str | None:
    if len(data) > MAX_KEY_FILE:
        return f"has more than {MAX_KEY_FILE} bytes, so it holds something else than a key"
    if not key.isprintable() or "\N{REPLACEMENT CHARACTER}" in key:
        return "must hold one line of UTF-8 text"
    if len(key) < limits.MIN_AUTH_KEY_LENGTH:
        return f"holds {len(key)} characters and a key has {limits.MIN_AUTH_KEY_LENGTH} at least"
    return None


# --- Who a client is ------------------------------------------------------------------------


def client_id(state_dir: Path, config_path: Path) -> str:
    """The identity of the client that a configuration file describes: 128 bits, lowercase hex.

    Made once for each configuration file and kept in `state_dir`. Where it cannot be kept, a
    warning is logged and the identity lasts as long as the process.

    Args:
      state_dir: need not exist yet.
      config_path: need not exist; its absolute path names the identity's file.
    """
    digest = hashlib.sha256(os.fsencode(os.path.abspath(config_path))).hexdigest()
    path = state_dir / f"client-{digest[:16]}.id"
    fresh = secrets.token_hex(16)
    try:
        kept = _read_state(path, limit=64)
        if kept is not None and _CLIENT_ID.fullmatch(kept.decode("latin-1")):
            return kept.decode().strip()
        if kept is not None:
            logger.warning("Client id is damaged, a new one takes its place", extra={"path": path})
        _keep(path, f"{fresh}\n".encode())
    except OSError as error:
        _cannot_keep(path, error, "the server takes the next start for another client")
    return fresh


# --- Certificates ---------------------------------------------------------------------------


@contextlib.contextmanager
def own_certificate(state_dir: Path) -> Iterator[Path]:
    """The certificate of a server that was given none: one PEM file, the key before it.

    It is made once and kept in `state_dir`, and made anew *under the same key* when it has less
    than a year left, so that a client's pin holds. Where it cannot be kept, a warning is logged
    and the file is gone when the context is left; load it before that.

    Raises:
      StoreError: the file is there and damaged. It is not replaced: every client that pins the
        key would have to be told.
    """
    path = state_dir / "server.pem"
    with contextlib.ExitStack() as stack:
        try:
            _ensure_certificate(path)
        except OSError as error:
            if os.access(path, os.R_OK):  # only the new date could not be written
                _cannot_keep(path, error, "the certificate is used until it runs out")
            else:
                _cannot_keep(path, error, "the next start shows another certificate and pin")
                path = Path(stack.enter_context(tempfile.TemporaryDirectory()), path.name)
                _ensure_certificate(path)
        yield path


def renew_own_certificate(path: Path, now: datetime) -> None:
    """Make the certificate that `own_certificate` gave anew, if it has less than a year left.

    The key stays, so that pins hold. Where the new one cannot be kept, a warning is logged.

    Args:
      path: the PEM file with key and certificate.
      now: the time, with its time zone.

    Raises:
      StoreError: the file is damaged, or gone.
    """
    try:
        kept = _read_state(path, limit=64 * limits.KIB)
        if kept is None:
            raise StoreError(f"the server's own certificate {path} is gone: put back a copy")
        _keep_made(path, _renewed(path, kept, now))
    except OSError as error:
        _cannot_keep(path, error, "the certificate is used until it runs out")


def leaf_der(cert_path: Path) -> bytes:
    """The first certificate of a PEM file, in DER: the one that a server shows.

    Raises:
      StoreError: the file cannot be read or has no certificate.
    """
    try:
        return first_der(cert_path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read the certificate {cert_path}: {_reason(error)}") from error
    except StoreError as error:
        raise StoreError(f"cannot use {cert_path}: {error}") from error


def _ensure_certificate(path: Path) -> None:
    """Make the file if it is missing, and a new certificate if the old one runs out."""
    kept = _read_state(path, limit=64 * limits.KIB)
    if kept is None:
        made: Certificate | None = make_certificate(OWN_NAMES[0], OWN_NAMES[1:])
    else:
        made = _renewed(path, kept, datetime.now(UTC))
    _keep_made(path, made)


def _keep_made(path: Path, made: Certificate | None) -> None:
    if made is not None:
        # One file, so that no crash and no second process parts the key from its certificate.
        _keep(path, made.key + made.cert)


def _renewed(path: Path, kept: bytes, now: datetime) -> Certificate | None:
    try:
        return renew(kept, OWN_NAMES, within=RENEW_BEFORE, now=now)
    except StoreError as error:
        raise StoreError(
            f"the server's own certificate {path} is damaged ({error}): put back a copy, "
            "or delete it for a new one and tell every client the new pin"
        ) from error


# --- State ----------------------------------------------------------------------------------


def _read_state(path: Path, *, limit: int) -> bytes | None:
    """What a file of ours holds, or None if there is no such file; raises OSError."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_atomic([File(path, data)])


def _cannot_keep(path: Path, error: OSError, consequence: str) -> None:
    logger.warning(
        "State cannot be kept",
        extra={
            "path": path,
            "reason": _reason(error),
            "consequence": consequence,
            "remedy": "set state_dir, or $STATE_DIRECTORY, to a directory that can be written",
        },
    )


def _write_atomic(files: Iterable[File]) -> None:
    staged: list[tuple[str, Path]] = []
    with contextlib.ExitStack() as cleanup:
        for file in files:
            # mkstemp opens with O_EXCL and 0600: nobody else can read it or have put it there.
            descriptor, name = tempfile.mkstemp(dir=file.path.parent, prefix=f".{file.path.name}.")
            cleanup.callback(Path(name).unlink, missing_ok=True)
            staged.append((name, file.path))
            with open(descriptor, "wb") as out:
                out.write(file.data)
                out.flush()
                os.fsync(descriptor)
            if file.mode != 0o600:
                os.chmod(name, file.mode)
        for name, path in staged:
            os.replace(name, path)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
