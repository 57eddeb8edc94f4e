"""Certificates as files, and what both ends agree on."""

import hashlib
import os
import ssl
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization

from tests.net.rig import make_contexts, memory_transports, tls_pair
from tunnel.errors import StoreError
from tunnel.net.contexts import client_context, server_tls


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificate")
    make_contexts(directory)
    return directory


def test_the_hash_is_that_of_the_certificate_that_is_shown(files):
    tls = server_tls(files / "cert.pem", files / "key.pem")
    first = (files / "cert.pem").read_text().split("-----END CERTIFICATE-----")[0]
    der = ssl.PEM_cert_to_DER_cert(first + "-----END CERTIFICATE-----\n")
    assert tls.leaf_hash == hashlib.sha256(der).digest()


async def test_what_is_agreed_on(contexts):
    client, server = await tls_pair(contexts, memory_transports)
    for stream in (client, server):
        assert stream.alpn == "tls-tunnel/1"
        assert stream._ssl.version() == "TLSv1.3"
    assert client.peer_certificate()
    assert server.peer_certificate() is None
    assert not client._ssl.session or not client._ssl.session.has_ticket
    client.abort()
    server.abort()


def test_a_key_of_another_certificate(files, tmp_path):
    make_contexts(tmp_path)
    with pytest.raises(StoreError, match="belong together") as caught:
        server_tls(files / "cert.pem", tmp_path / "key.pem")
    assert str(files / "cert.pem") in str(caught.value)
    assert str(tmp_path / "key.pem") in str(caught.value)


def test_files_that_are_none(files, tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        server_tls(tmp_path / "missing.pem", files / "key.pem")
    with pytest.raises(StoreError, match=r"missing\.pem"):
        client_context(ca_path=tmp_path / "missing.pem", verify=True, check_hostname=True)
    (tmp_path / "text.pem").write_text("not a certificate")
    with pytest.raises(StoreError, match="check that both are PEM files"):
        server_tls(tmp_path / "text.pem", files / "key.pem")
    with pytest.raises(StoreError, match=r"text\.pem"):
        client_context(ca_path=tmp_path / "text.pem", verify=True, check_hostname=True)


def test_what_a_client_checks(files):
    strict = client_context(ca_path=files / "ca.pem", verify=True, check_hostname=True)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    pinned = client_context(ca_path=files / "ca.pem", verify=True, check_hostname=False)
    assert (pinned.verify_mode, pinned.check_hostname) == (ssl.CERT_REQUIRED, False)
    lax = client_context(ca_path=None, verify=False, check_hostname=True)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


def test_keys_are_not_logged_for_eavesdroppers(files, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    server = server_tls(files / "cert.pem", files / "key.pem").context
    client = client_context(ca_path=None, verify=True, check_hostname=True)
    assert server.keylog_filename is client.keylog_filename is None


@pytest.mark.skipif(os.name != "posix", reason="terminals are made in another way there")
def test_nobody_is_asked_for_the_password_of_a_key(files, tmp_path):
    """OpenSSL would ask at the terminal, and the whole server would wait for an answer."""
    password = serialization.BestAvailableEncryption(b"nobody is there to type it")
    key = serialization.load_pem_private_key((files / "key.pem").read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, password))
    code = (
        "import fcntl, sys, termios\n"
        "from pathlib import Path\n"
        "from tunnel.net.contexts import server_tls\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "server_tls(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, files / "cert.pem", tmp_path / "key.pem"]
    person, terminal = os.openpty()
    try:
        done = subprocess.run(
            command, stdin=terminal, capture_output=True, start_new_session=True, timeout=30
        )
    finally:
        os.close(terminal)
        os.close(person)
    assert b"StoreError" in done.stderr
    assert b"not encrypted" in done.stderr
