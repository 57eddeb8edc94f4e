from __future__ import annotations

import contextlib
import logging
import os
import re
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from tunnel import certificates, store
from tunnel.errors import StoreError
from tunnel.protocol.keys import is_generated_key

KEY = "a key that is long enough"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def warnings(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- Places


def test_paths_are_relative_to_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert store.resolve("cert.pem", base=tmp_path) == tmp_path / "cert.pem"
    assert store.resolve("/etc/cert.pem", base=tmp_path) == Path("/etc/cert.pem")
    assert store.resolve("~/cert.pem", base=tmp_path) == Path("/home/me/cert.pem")
    assert store.resolve("cert.pem", base=Path("conf")) == Path.cwd() / "conf" / "cert.pem"


def test_an_unknown_home_is_an_error(tmp_path):
    with pytest.raises(StoreError, match=r"~nobody-has-this-name/x.*in full"):
        store.resolve("~nobody-has-this-name/x", base=tmp_path)


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("state", {"STATE_DIRECTORY": "/systemd"}, "/etc/tunnel/state"),
        (None, {"STATE_DIRECTORY": "/systemd:/other", "XDG_STATE_HOME": "/xdg"}, "/systemd"),
        (None, {"XDG_STATE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/tls-tunnel"),
        (None, {"XDG_STATE_HOME": "xdg", "HOME": "/h"}, "/h/.local/state/tls-tunnel"),
        (None, {"STATE_DIRECTORY": "", "HOME": "/h"}, "/h/.local/state/tls-tunnel"),
    ],
)
def test_state_directory(configured, environ, expected):
    found = store.state_directory(configured, base=Path("/etc/tunnel"), environ=environ)
    assert found == Path(expected)


def test_state_directory_without_a_home_is_beside_the_configuration(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    found = store.state_directory(None, base=Path("/etc/tunnel"), environ={})
    assert found == Path("/etc/tunnel/.tls-tunnel")


# --- Writing


def test_a_written_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / "key"
    store.write_atomic(store.File(path, b"one"))
    assert path.read_bytes() == b"one"
    assert mode(path) == 0o600
    store.write_atomic(store.File(path, b"two", mode=0o644))
    assert path.read_bytes() == b"two"
    assert mode(path) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_never_open_to_others_while_it_is_written(tmp_path, monkeypatch):
    seen = []

    def fsync(descriptor):
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", fsync)
    old = os.umask(0)
    try:
        store.write_atomic(store.File(tmp_path / "key", b"secret"))
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def fsync(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=r"cannot write .*key: No space left on device; check"):
        store.write_atomic(store.File(path, b"new"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_written_together_or_not_at_all(tmp_path):
    one, other = tmp_path / "one", tmp_path / "missing" / "other"
    with pytest.raises(StoreError, match=r"cannot write .*/one and .*/other: No such file"):
        store.write_atomic(store.File(one, b"1"), store.File(other, b"2"))
    assert list(tmp_path.iterdir()) == []
    other.parent.mkdir()
    store.write_atomic(store.File(one, b"1"), store.File(other, b"2", 0o644))
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")
    assert (mode(one), mode(other)) == (0o600, 0o644)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"missing/key: No such file or directory; check"):
        store.write_atomic(store.File(tmp_path / "missing" / "key", b""))


# --- Key files


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_key_file_is_its_line(tmp_path, caplog, end):
    path = tmp_path / "key"
    store.write_atomic(store.File(path, (f" {KEY} ä" + end).encode()))
    assert store.read_auth_key(path) == f" {KEY} ä"
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds 0 characters and a key has 16 at least"),
        (b"fifteen letters", "holds 15 characters"),
        (KEY.encode() + b"\n\n", "one line of UTF-8 text"),
        (KEY.encode() + b"\nmore", "one line of UTF-8 text"),
        (b"\xff" * 20, "one line of UTF-8 text"),
        (b"\0" * 20, "one line of UTF-8 text"),
        (b"k" * 5000, "has more than 4096 bytes"),
    ],
)
def test_a_bad_key_file_is_an_error_without_its_content(tmp_path, content, problem):
    path = tmp_path / "key"
    store.write_atomic(store.File(path, content))
    with pytest.raises(StoreError, match=problem) as caught:
        store.read_auth_key(path)
    message = str(caught.value)
    assert str(path) in message
    assert "tls-tunnel keygen" in message
    assert not content or content.decode("latin-1") not in message


def test_an_endless_key_file_ends():
    with pytest.raises(StoreError, match="has more than 4096 bytes"):
        store.read_auth_key(Path("/dev/zero"))


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"cannot read the key file .*/key: No such file"):
        store.read_auth_key(tmp_path / "key")


@pytest.mark.parametrize("bits", [0o644, 0o604, 0o666, 0o620, 0o602])
def test_an_exposed_key_file_is_warned_about(tmp_path, caplog, bits):
    path = tmp_path / "key"
    store.write_atomic(store.File(path, KEY.encode(), mode=bits))
    assert store.read_auth_key(path) == KEY
    [record] = warnings(caplog)
    assert f"{bits:04o}" in record.problem
    assert f"chmod 600 {path}" in record.problem
    assert KEY not in caplog.text


@pytest.mark.parametrize("bits", [0o600, 0o400, 0o640, 0o440])
def test_owner_and_group_may_read_a_secret(tmp_path, bits):
    path = tmp_path / "key"
    store.write_atomic(store.File(path, b"", mode=bits))
    assert store.exposed(path) is None


def test_a_missing_file_is_not_exposed(tmp_path):
    assert store.exposed(tmp_path / "missing") is None


# --- Who a client is


def test_a_client_id_is_made_once(tmp_path, caplog):
    state = tmp_path / "a" / "state"
    first = store.client_id(state, tmp_path / "client.toml")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert store.client_id(state, tmp_path / "client.toml") == first
    assert mode(state) == 0o700
    assert [mode(file) for file in state.iterdir()] == [0o600]
    assert not warnings(caplog)


def test_each_configuration_has_its_own_client_id(tmp_path):
    ids = {store.client_id(tmp_path, tmp_path / name) for name in ("a.toml", "b.toml", "c.toml")}
    assert len(ids) == 3


def test_a_relative_path_is_the_same_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = store.client_id(tmp_path, Path("client.toml"))
    assert found == store.client_id(tmp_path, tmp_path / "client.toml")


@pytest.mark.parametrize("damage", [b"", b"\xff" * 32, b"A" * 32, b"0" * 31, b"0" * 33, b"\n"])
def test_a_damaged_client_id_is_replaced_once(tmp_path, caplog, damage):
    before = store.client_id(tmp_path, tmp_path / "client.toml")
    [path] = tmp_path.iterdir()
    path.write_bytes(damage)
    after = store.client_id(tmp_path, tmp_path / "client.toml")
    assert re.fullmatch("[0-9a-f]{32}", after)
    assert after != before
    [record] = warnings(caplog)
    assert record.path == path
    assert store.client_id(tmp_path, tmp_path / "client.toml") == after
    assert len(warnings(caplog)) == 1


def test_a_client_id_that_cannot_be_kept_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    first = store.client_id(tmp_path / "file", tmp_path / "client.toml")
    second = store.client_id(tmp_path / "file" / "below", tmp_path / "client.toml")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
    assert [record.getMessage() for record in warnings(caplog)] == ["State cannot be kept"] * 2
    assert "state_dir" in warnings(caplog)[0].remedy


# --- Certificates


def alt_names(pem):
    names = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return [str(name.value) for name in names.value]


def shake_hands(server_file, client_context, host):
    """The certificate, in DER, that a client of `host` sees and accepts."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(server_file)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(up, down, server_side=True)
    client = client_context.wrap_bio(down, up, server_hostname=host)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.getpeercert(binary_form=True)


def test_a_certificate_holds_its_names_once():
    made = store.make_certificate(
        "tunnel.example.org", ["192.0.2.1", "2001:db8::1", "*.example.org", "tunnel.example.org"]
    )
    assert alt_names(made.cert) == [
        "tunnel.example.org",
        "192.0.2.1",
        "2001:db8::1",
        "*.example.org",
    ]
    assert isinstance(load_pem_private_key(made.key, None).curve, ec.SECP256R1)
    assert "PRIVATE" not in repr(made)


def test_a_name_in_other_letters_is_written_in_ascii():
    assert alt_names(store.make_certificate("bücher.example").cert) == ["xn--bcher-kva.example"]


def test_a_long_name_fits():
    name = ".".join(["a" * 50] * 4)
    assert alt_names(store.make_certificate(name).cert) == [name]


@pytest.mark.parametrize("name", ["", "two words", "a..b", "-a", "a,b", "x" * 64, "a\nb", "::g"])
def test_a_bad_name_is_an_error(name):
    with pytest.raises(StoreError, match="cannot be a name in a certificate; give host names"):
        store.make_certificate("localhost", [name])


def test_strict_clients_accept_the_certificate_for_its_names(tmp_path):
    made = store.make_certificate("localhost", ["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(made.key + made.cert)
    context = ssl.create_default_context(cadata=made.cert.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    for host in ("localhost", "127.0.0.1"):
        assert shake_hands(tmp_path / "server.pem", context, host) == certificates.first_der(
            made.cert
        )
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(tmp_path / "server.pem", context, "example.org")


@pytest.fixture(scope="module")
def der():
    return certificates.first_der(store.make_certificate("localhost").cert)


def openssl(*arguments, given):
    return subprocess.run(
        ["openssl", *arguments], input=given, capture_output=True, check=True
    ).stdout


def test_fingerprint_and_pin_are_those_of_openssl(der):
    shown = openssl("x509", "-inform", "der", "-noout", "-fingerprint", "-sha256", given=der)
    assert shown.decode().strip().partition("=")[2] == store.fingerprint(der)
    pem = openssl("x509", "-inform", "der", "-noout", "-pubkey", given=der)
    spki = openssl("pkey", "-pubin", "-outform", "der", given=pem)
    digest = openssl("dgst", "-sha256", "-r", given=spki).decode().split()[0]
    assert store.spki_pin(der) == f"sha256:{digest}"


# (A serial number that is negative is a warning of the library's, and no error.)
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.data())
def test_any_bytes_have_a_pin_and_dates_or_a_store_error(der, data):
    damaged = bytearray(der)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(der) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(der)))
    for given_bytes in (bytes(damaged), bytes(damaged[:cut])):
        with contextlib.suppress(StoreError):
            assert re.fullmatch("sha256:[0-9a-f]{64}", store.spki_pin(given_bytes))
        with contextlib.suppress(StoreError):
            since, until = certificates.validity(given_bytes)
            assert since.tzinfo is until.tzinfo is UTC


def test_leaf_is_the_first_certificate_of_a_file(tmp_path, der):
    one, other = (store.make_certificate("localhost") for _ in range(2))
    path = tmp_path / "chain.pem"
    path.write_bytes(one.key + one.cert + other.cert)
    assert store.leaf_der(path) == certificates.first_der(one.cert)


def test_a_file_without_a_certificate_is_an_error(tmp_path):
    path = tmp_path / "cert.pem"
    with pytest.raises(StoreError, match=r"cannot read the certificate .*cert.pem: No such file"):
        store.leaf_der(path)
    path.write_bytes(store.make_certificate("localhost").key)
    with pytest.raises(StoreError, match=r"cannot use .*cert.pem: there is no certificate"):
        store.leaf_der(path)


# --- The server's own certificate


def test_own_certificate_is_made_once_and_works(tmp_path, caplog):
    state = tmp_path / "state"
    with store.own_certificate(state) as path:
        first = path.read_bytes()
    with store.own_certificate(state) as again:
        assert again == path
        assert path.read_bytes() == first
    assert mode(path) == 0o600
    assert mode(state) == 0o700
    assert alt_names(first) == ["localhost", "127.0.0.1", "::1"]
    context = ssl.create_default_context(cadata=certificates_of(first))
    assert shake_hands(path, context, "localhost") == store.leaf_der(path)
    assert not warnings(caplog)


def certificates_of(pem):
    return pem[pem.index(b"-----BEGIN CERTIFICATE") :].decode()


def test_own_certificate_lasts_ten_years_less_one_and_then_keeps_its_pin(tmp_path, monkeypatch):
    with store.own_certificate(tmp_path) as path:
        old = store.leaf_der(path)
    end = x509.load_der_x509_certificate(old).not_valid_after_utc
    assert timedelta(days=3649) < end - datetime.now(UTC) <= timedelta(days=3650)

    at(monkeypatch, end - timedelta(days=366))
    with store.own_certificate(tmp_path) as path:
        assert store.leaf_der(path) == old

    at(monkeypatch, end - timedelta(days=364))
    with store.own_certificate(tmp_path) as path:
        new = store.leaf_der(path)
    assert new != old
    assert store.spki_pin(new) == store.spki_pin(old)
    assert x509.load_der_x509_certificate(new).not_valid_after_utc > end


def at(monkeypatch, now):
    class Clock(datetime):
        @classmethod
        def now(cls, _zone=None):
            return now

    monkeypatch.setattr(store, "datetime", Clock)
    monkeypatch.setattr(certificates, "datetime", Clock)


def test_a_renewal_that_cannot_be_kept_uses_the_old_one(tmp_path, monkeypatch, caplog):
    with store.own_certificate(tmp_path) as path:
        old = path.read_bytes()
    at(monkeypatch, datetime.now(UTC) + timedelta(days=3600))

    def replace(source, target):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", replace)
    with store.own_certificate(tmp_path) as again:
        assert again == path
        assert again.read_bytes() == old
    [record] = warnings(caplog)
    assert record.reason == "Read-only file system"


def test_without_a_state_directory_a_certificate_lasts_one_run(tmp_path, caplog):
    (tmp_path / "file").touch()
    pins = set()
    for _ in range(2):
        with store.own_certificate(tmp_path / "file") as path:
            pins.add(store.spki_pin(store.leaf_der(path)))
            assert mode(path) == 0o600
            assert mode(path.parent) == 0o700
        assert not path.parent.exists()
    assert len(pins) == 2
    assert [record.getMessage() for record in warnings(caplog)] == ["State cannot be kept"] * 2


def damaged_files():
    one, other = (certificates.make_certificate("localhost") for _ in range(2))
    yield "empty", b"", "no certificate with its key"
    yield "cut", (one.key + one.cert)[:300], "no certificate with its key"
    yield "key only", one.key, "no certificate with its key"
    yield "mixed", one.key + other.cert, "do not belong together"


@pytest.mark.parametrize("name", ["empty", "cut", "key only", "mixed"])
def test_a_damaged_certificate_is_not_replaced(tmp_path, name):
    [(content, problem)] = [(c, p) for n, c, p in damaged_files() if n == name]
    path = tmp_path / "server.pem"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"{problem}.*put back a copy, or delete it") as caught:
        with store.own_certificate(tmp_path):
            pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_cryptography_is_loaded_only_when_it_is_used():
    code = "import sys, tunnel.store; print('cryptography' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


# --- A server's own key


def test_own_key_is_made_once_and_kept_for_its_owner(tmp_path, caplog):
    key = store.own_key(tmp_path / "state")
    assert is_generated_key(key)
    assert store.own_key(tmp_path / "state") == key
    assert store.own_key(tmp_path / "other") != key
    assert mode(tmp_path / "state" / "server.key") == 0o600
    assert mode(tmp_path / "state") == 0o700
    assert not warnings(caplog)


def test_own_key_that_cannot_be_kept_is_another_one_each_time(tmp_path, caplog):
    (tmp_path / "file").touch()
    first, second = (store.own_key(tmp_path / "file" / "state") for _ in range(2))
    assert is_generated_key(first)
    assert first != second
    assert [record.getMessage() for record in warnings(caplog)] == ["State cannot be kept"] * 2
    assert warnings(caplog)[0].consequence == "the next start has another key"
    assert first not in caplog.text


def test_own_key_that_is_damaged_is_not_replaced(tmp_path):
    (tmp_path / "server.key").write_text("ttk1_")
    with pytest.raises(StoreError, match=r"server.key holds 5 characters"):
        store.own_key(tmp_path)
    assert (tmp_path / "server.key").read_text() == "ttk1_"
