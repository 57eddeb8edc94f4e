"""Certificates as files, and what both ends agree on."""

import hashlib
import ssl

import pytest

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
