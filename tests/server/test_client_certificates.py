"""Mutual TLS: a certificate besides the key, and both for the same client."""

import contextlib
import logging
import os
import ssl

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from tests.rig import proxy, read_all, visit, world
from tunnel.client.dial import certificate_remedy
from tunnel.client.session import hold_session
from tunnel.errors import LinkLost, Refused, StoreError
from tunnel.net.contexts import client_context, server_tls
from tunnel.protocol.keys import derive, generate_key
from tunnel.server.certificate import CertificateFiles, CertificateKeeper
from tunnel.server.identity import Identity, certificate_names

OFFICE = derive(generate_key(b"o" * 32))


def office(rules):
    return Identity(OFFICE.verifier, rules, "office")


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(certificate, authority, tmp_path):
    """Contexts of a server that asks for certificates, and of clients that have some."""
    return Contexts(certificate, authority, tmp_path)


class Contexts:
    def __init__(self, certificate, authority, directory):
        self.certificate = certificate
        self.authority = authority
        self.directory = directory
        ca = directory / "client-ca.pem"
        authority.cert_pem.write_to_path(ca)
        self.server = server_tls(certificate / "cert.pem", certificate / "key.pem", ca)

    def client(self, issued=None):
        """The context of a client with that certificate."""
        own = None
        if issued is not None:
            own = self.directory / "client.pem", self.directory / "client-key.pem"
            own[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(own[1])
        return client_context(
            ca_path=self.certificate / "ca.pem", verify=True, check_hostname=True, own=own
        )


async def end_of(tunnel, tls, issued=None, *, keys=None):
    """What becomes of a client with this certificate and key: "connected", or an error."""
    tunnel.context = tls.client(issued)
    client = tunnel.client(proxy(1), keys=keys)
    with trio.fail_after(5), trio.CancelScope() as connected:
        try:
            await hold_session(client, 1, connected.cancel)
        except* (LinkLost, Refused) as group:
            error = group.exceptions[0]
    return "connected" if connected.cancelled_caught else error


async def world_with(tunnel, tls):
    tunnel.tls = tls.server
    await tunnel.start_server(identities=[office])


async def test_a_certificate_of_the_authority_and_the_key(certificate, tls, authority):
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        whoever = authority.issue_cert(common_name="whoever")
        assert await end_of(tunnel, tls, whoever) == "connected"
        issued = authority.issue_cert("office")
        assert await end_of(tunnel, tls, issued, keys=OFFICE) == "connected"


async def test_the_certificate_does_not_replace_the_key(certificate, tls, authority):
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        wrong = derive(generate_key(b"w" * 32))
        error = await end_of(tunnel, tls, authority.issue_cert("office"), keys=wrong)
        assert str(error) == "the server does not accept this auth_key"


async def test_a_certificate_of_somebody_else(certificate, tls, authority):
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        error = await end_of(tunnel, tls, authority.issue_cert("home"), keys=OFFICE)
        assert isinstance(error, Refused)
        assert error.code == "authentication"
        assert str(error) == (
            "the key belongs to office and the client certificate to home: "
            "use a key and a certificate that belong together"
        )
        # Only whoever has proved the key is told.
        wrong = derive(generate_key(b"w" * 32))
        error = await end_of(tunnel, tls, authority.issue_cert("home"), keys=wrong)
        assert str(error) == "the server does not accept this auth_key"


async def test_no_certificate(certificate, tls, caplog):
    caplog.set_level(logging.INFO)
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        error = await end_of(tunnel, tls)
        assert isinstance(error, LinkLost)
        assert str(error) == (
            "the server asks for a client certificate: set cert_path and key_path in [client] "
            "to one that an authority in the server's client_ca_path issued"
        )
        while not (lines := [r for r in caplog.records if r.getMessage() == "Handshake failed"]):
            await wait_all_tasks_blocked()
        assert lines[0].reason == "TLS: peer did not return a certificate"


async def test_the_alert_is_not_overtaken_by_a_reset(certificate, tls):
    """Where a reset discards what came before it, the client would not hear what is wrong."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = tls.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        async with await visit(tunnel.address) as stream:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            await stream.send_all(outgoing.read())
            while outgoing.pending == 0:
                incoming.write(await stream.receive_some())
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
            await stream.send_all(outgoing.read())
            incoming.write(await read_all(stream))
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            end.read()


async def test_a_certificate_of_another_authority(certificate, tls):
    async with world(certificate) as tunnel:
        await world_with(tunnel, tls)
        error = await end_of(tunnel, tls, trustme.CA().issue_cert("office"), keys=OFFICE)
        assert str(error) == (
            "the server does not accept this client's certificate (unknown ca): set cert_path and "
            "key_path to one that an authority in the server's client_ca_path issued"
        )


async def test_a_public_authority_says_nobody_who_our_clients_are(tls):
    assert tls.server.context.verify_mode is ssl.CERT_REQUIRED
    assert len(tls.server.context.get_ca_certs()) == 1


async def test_a_server_that_does_not_ask_looks_at_no_certificate(certificate, tls, authority):
    async with world(certificate) as tunnel:
        await tunnel.start_server(identities=[office])
        issued = authority.issue_cert("home")
        assert await end_of(tunnel, tls, issued, keys=OFFICE) == "connected"


async def test_other_ends_are_not_about_certificates():
    assert certificate_remedy(trio.BrokenResourceError("closed")) is None


def test_a_file_that_is_no_certificate(certificate, tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(StoreError, match=r"cannot read certificates from .*bad\.pem"):
        server_tls(certificate / "cert.pem", certificate / "key.pem", bad)
    with pytest.raises(StoreError, match=r"cannot use certificate .*bad\.pem"):
        client_context(ca_path=None, verify=False, check_hostname=False, own=(bad, bad))


# --- Whose it is ------------------------------------------------------------------------------


def names(issued):
    pem = issued.cert_chain_pems[0].bytes().decode()
    return certificate_names(ssl.PEM_cert_to_DER_cert(pem))


def test_alternative_names_go_before_the_common_name(authority):
    assert names(authority.issue_cert("office", "b.example")) == {"office", "b.example"}
    assert names(authority.issue_cert("office", common_name="home")) == {"office"}
    assert names(authority.issue_cert(common_name="办公室")) == {"办公室"}
    # Neither of these is a name.
    assert names(authority.issue_cert("192.0.2.1", common_name="home")) == {"home"}


def test_what_is_no_certificate_is_nobody_s():
    assert certificate_names(b"") == frozenset()
    assert certificate_names(b"0\x03\x02\x01\x01") == frozenset()


# --- While the server runs --------------------------------------------------------------------


async def test_another_authority_counts_from_the_next_connection_on(certificate, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    old, new = trustme.CA(), trustme.CA()
    ca = tmp_path / "client-ca.pem"
    old.cert_pem.write_to_path(ca)
    tls = Contexts(certificate, old, tmp_path)
    files = CertificateFiles(certificate / "cert.pem", certificate / "key.pem", client_ca=ca)
    keeper = CertificateKeeper(files)
    async with world(certificate) as tunnel:
        tunnel.tls = keeper.shown
        await tunnel.start_server()
        assert await end_of(tunnel, tls, old.issue_cert("a")) == "connected"
        new.cert_pem.write_to_path(ca)
        os.utime(ca, ns=(1, 1))
        tunnel.server.tls = keeper.look()
        assert await end_of(tunnel, tls, new.issue_cert("a")) == "connected"
        error = await end_of(tunnel, tls, old.issue_cert("a"))
        assert "does not accept this client's certificate" in str(error)
        # A broken file changes nothing.
        ca.write_text("nothing")
        tunnel.server.tls = keeper.look()
        assert await end_of(tunnel, tls, new.issue_cert("a")) == "connected"
    assert [r.getMessage() for r in caplog.records].count("Certificate cannot be used") == 1
