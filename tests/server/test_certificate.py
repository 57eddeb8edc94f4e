"""The certificate follows its files; a broken one is never shown; its end is announced."""

from __future__ import annotations

import itertools
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from tests.rig import proxy, read_all, visit, world
from tunnel import certificates, limits, store
from tunnel.certificates import make_certificate, spki_pin
from tunnel.client.dial import Dialler
from tunnel.errors import StoreError
from tunnel.net.contexts import client_context
from tunnel.server.certificate import CertificateFiles, CertificateKeeper
from tunnel.store import leaf_der
from tunnel.views import ClientState

DAY = timedelta(days=1)


class Files:
    """A certificate and its key in two files, and a clock that the test sets."""

    def __init__(self, directory):
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        self.now = datetime.now(UTC)
        self.write(make_certificate("localhost"))

    def write(self, certificate):
        """Put another one in their place."""
        store.write_atomic(
            store.File(self.cert, certificate.cert), store.File(self.key, certificate.key)
        )

    def keeper(self, **settings):
        return CertificateKeeper(
            CertificateFiles(self.cert, self.key, **settings), now=lambda: self.now
        )


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture
def said(caplog):
    """The events that were logged since it was last asked."""
    caplog.set_level(logging.INFO, "tunnel.server")

    def said():
        events = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return events

    return said


# --- Reloading


def test_what_has_not_changed_is_not_read_again(files, said, monkeypatch):
    keeper = files.keeper()
    monkeypatch.setattr("tunnel.server.certificate.server_tls", None)
    before = keeper.shown
    assert keeper.look() is keeper.look() is before
    assert said() == []


def test_a_new_certificate_is_shown(files, said):
    keeper = files.keeper()
    before = keeper.shown
    files.write(anew(files))
    after = keeper.look()
    assert after.leaf == leaf_der(files.cert)
    assert after.context is not before.context
    assert (after.leaf != before.leaf, after.leaf_hash != before.leaf_hash) == (True, True)
    assert said() == ["Certificate reloaded"]
    assert keeper.look() is after
    assert said() == []


def _key_of(files):
    return serialization.load_pem_private_key(files.key.read_bytes(), None)


def anew(files, now=None):
    """Another certificate under the same key, made now."""
    return certificates._self_signed(_key_of(files), ["localhost"], now or files.now)


def test_the_authorities_of_clients_are_looked_at_as_well(files, said, tmp_path):
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(files.cert.read_bytes())
    keeper = files.keeper(client_ca=authorities)
    before = keeper.shown
    authorities.write_bytes(make_certificate("another.example").cert)
    after = keeper.look()
    assert after is not before
    assert after.leaf == before.leaf
    assert after.context.verify_mode is before.context.verify_mode is ssl.CERT_REQUIRED
    assert said() == ["Certificate reloaded"]


def test_another_key_is_a_warning_since_pins_break(files, caplog):
    keeper = files.keeper()
    files.write(make_certificate("localhost"))
    keeper.look()
    [record] = caplog.records
    assert (record.getMessage(), record.levelname) == ("Certificate reloaded", "WARNING")
    assert record.pin == keeper.pin == spki_pin(leaf_der(files.cert))
    assert "pin" in record.consequence


def test_a_file_that_is_replaced_within_the_same_moment_is_noticed(files):
    """Same length, same time: it is another file all the same."""
    keeper = files.keeper()
    before = {path: path.stat() for path in (files.cert, files.key)}
    while len((other := make_certificate("localhost")).cert) != before[files.cert].st_size:
        pass
    files.write(other)  # once: the third file in a row could have the number of the first
    for path, found in before.items():
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert keeper.look().leaf == leaf_der(files.cert)


def no_pem(files):
    files.cert.write_text("nothing of the kind")


def another_key(files):
    files.key.write_bytes(make_certificate("localhost").key)


def half_written(files):
    files.cert.write_bytes(files.cert.read_bytes()[:300])


def gone(files):
    files.cert.unlink()


def encrypted_key(files):
    password = serialization.BestAvailableEncryption(b"nobody is there to type it")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(_key_of(files).private_bytes(pem, pkcs8, password))


def expired(files):
    long_ago = files.now - certificates.LIFE - DAY
    files.write(anew(files, long_ago))


def of_the_future(files):
    later = files.now + 2 * DAY  # it is good from a day before that
    files.write(anew(files, later))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_pem, "check that both are PEM files"),
        (another_key, "belong together"),
        (half_written, "check that both are PEM files"),
        (gone, "No such file"),
        (encrypted_key, "not encrypted"),
        (expired, "expired on"),
        (of_the_future, "is good from"),
    ],
)
def test_a_broken_certificate_leaves_the_old_one_and_is_said_once(
    files, said, caplog, damage, reason
):
    keeper = files.keeper()
    before = keeper.shown
    damage(files)
    assert keeper.look() is before
    [record] = caplog.records
    assert record.getMessage() == "Certificate cannot be used"
    assert reason in record.reason
    assert "still shown" in record.consequence
    said()
    for _ in range(3):
        assert keeper.look() is before
    assert said() == []
    files.cert.write_text("something else that is no certificate")
    assert keeper.look() is before
    assert said() == ["Certificate cannot be used"]
    files.write(make_certificate("localhost"))
    assert keeper.look() is not before
    assert said() == ["Certificate reloaded"]


def test_one_of_the_future_is_shown_when_its_time_has_come(files, said):
    keeper = files.keeper()
    before = keeper.shown
    of_the_future(files)
    assert keeper.look() is before
    files.now += 1.1 * DAY
    assert keeper.look() is not before
    assert said() == ["Certificate cannot be used", "Certificate reloaded"]


def test_asked_to_reload_it_always_says_what_came_of_it(files, said):
    keeper = files.keeper()
    assert keeper.look(asked=True).leaf == keeper.shown.leaf
    assert said() == ["Certificate unchanged"]
    no_pem(files)
    keeper.look(asked=True)
    keeper.look(asked=True)
    assert said() == ["Certificate cannot be used"] * 2


def test_at_the_start_a_broken_one_is_an_error(files):
    no_pem(files)
    with pytest.raises(StoreError, match="check that both are PEM files"):
        files.keeper()


# --- Its end


def test_its_end_is_announced_two_weeks_ahead_and_once_a_day(files, said):
    files.now += certificates.LIFE - 15 * DAY
    keeper = files.keeper()
    announced = []
    for hour in range(24 * 17):
        announced += [(hour, event) for event in said()]
        files.now += timedelta(hours=1)
        keeper.look()
    hours = [hour for hour, _ in announced]
    assert 23 <= hours[0] <= 25
    assert {later - sooner for sooner, later in itertools.pairwise(hours)} == {24}
    events = [event for _, event in announced]
    assert events.count("Certificate expires soon") == 14
    assert set(events[14:]) == {"Certificate has expired"}


def test_at_the_start_it_is_announced_as_well(files, caplog):
    files.now += certificates.LIFE - 13.5 * DAY
    files.keeper()
    [record] = caplog.records
    assert (record.getMessage(), record.days) == ("Certificate expires soon", 13)
    assert record.path == str(files.cert)
    assert "without a restart" in record.remedy


def test_a_new_one_ends_the_warnings(files, said):
    files.now += certificates.LIFE - 10 * DAY
    keeper = files.keeper()
    files.write(anew(files))
    keeper.look()
    said()
    files.now += 5 * DAY
    keeper.look()
    assert said() == []


def test_a_new_one_that_ends_soon_as_well_is_announced_at_once(files, said):
    files.now += certificates.LIFE - 10 * DAY
    keeper = files.keeper()
    files.write(anew(files, files.now - certificates.LIFE + 5 * DAY))
    keeper.look()
    assert said() == [
        "Certificate expires soon",
        "Certificate reloaded",
        "Certificate expires soon",
    ]


# --- The server's own


@pytest.fixture
def own(tmp_path):
    """A server's own certificate, as it is made at the first start."""
    files = Files.__new__(Files)
    files.now = datetime.now(UTC)
    with store.own_certificate(tmp_path) as path:
        files.cert = files.key = path
    return files


def test_the_own_certificate_is_renewed_under_its_key_while_the_server_runs(own, said):
    keeper = own.keeper(own=True)
    before, pin = keeper.shown, keeper.pin
    own.now = keeper.until - store.RENEW_BEFORE - DAY
    assert keeper.look() is before
    own.now += 2 * DAY
    after = keeper.look()
    assert after.leaf != before.leaf
    assert keeper.pin == pin == spki_pin(after.leaf)
    assert keeper.until > own.now + 9 * 365 * DAY
    assert own.cert.stat().st_mode & 0o777 == 0o600
    assert said() == ["Certificate reloaded"]
    assert [path.name for path in own.cert.parent.iterdir()] == ["server.pem"]


def test_an_own_certificate_that_is_gone_is_not_made_with_another_key(own, said):
    keeper = own.keeper(own=True)
    before = keeper.shown
    own.cert.unlink()
    own.now = keeper.until - DAY
    assert keeper.look() is before
    assert not own.cert.exists()
    assert "Certificate cannot be used" in said()


def test_a_renewal_that_cannot_be_kept_is_tried_once_a_day(own, monkeypatch, caplog):
    keeper = own.keeper(own=True)
    before = keeper.shown
    tried = []

    def replace(source, target):
        tried.append(own.now)
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        own.now = keeper.until - 100 * DAY
        for _ in range(48):
            assert keeper.look() is before
            own.now += timedelta(hours=1)
    assert len(tried) == 2
    assert [record.getMessage() for record in caplog.records] == ["State cannot be kept"] * 2
    own.now += DAY
    assert keeper.look() is not before


def test_one_that_could_not_be_kept_is_not_looked_for(own, said):
    keeper = own.keeper(own=True, kept=False)
    before = keeper.shown
    own.cert.unlink()
    own.now = keeper.until - 7.5 * DAY
    assert keeper.look(asked=True) is before
    assert said() == ["Certificate expires soon"]


# --- A server that runs


async def start(tunnel, files):
    keeper = files.keeper()
    tunnel.tls = keeper.shown
    return await tunnel.start_server(certificate=keeper)


def pinned(tunnel, files):
    """A client that trusts the key in the files, whatever the certificate says."""
    context = client_context(ca_path=None, verify=False, check_hostname=False)
    pin = spki_pin(leaf_der(files.cert))
    return Dialler((tunnel.address,), context, frozenset({pin}), spki_pin, 10.0)


async def test_a_reload_drops_nobody_and_newcomers_see_the_new_one(certificate, files):
    async with world(certificate) as tunnel:
        handle = await start(tunnel, files)
        before = tunnel.server.tls
        tunnel.dial = pinned(tunnel, files)
        client = await tunnel.start_client(proxy(await tunnel.start_service()))
        async with await visit(client.statistics()[0].addresses[0]) as visitor:
            await visitor.send_all(b"before")
            files.write(anew(files))
            handle.reload()
            assert tunnel.server.tls is not before
            await visitor.send_all(b" and after")
            await visitor.send_eof()
            assert await read_all(visitor) == b"before and after"
        tls = await tunnel.dial()
        assert tls.peer_certificate() == leaf_der(files.cert)
        tls.abort()
        assert client.state.value is ClientState.CONNECTED


async def test_a_proof_in_flight_survives_a_reload(certificate, files):
    """The certificate changes after TLS and before the proofs that are bound to it."""
    async with world(certificate) as tunnel:
        handle = await start(tunnel, files)
        dial = pinned(tunnel, files)
        dialled = 0

        async def dial_and_reload():
            nonlocal dialled
            dialled += 1
            tls = await dial()
            files.write(anew(files))
            handle.reload()
            return tls

        tunnel.dial = dial_and_reload
        client = await tunnel.start_client(proxy(await tunnel.start_service()))
        assert client.state.value is ClientState.CONNECTED
        assert dialled == 1


async def test_changed_files_are_noticed_by_the_server_itself(certificate, files, autojump_clock):
    async with world(certificate) as tunnel:
        await start(tunnel, files)
        before = tunnel.server.tls
        await trio.sleep(10 * limits.CERTIFICATE_POLL_INTERVAL)
        assert tunnel.server.tls is before
        files.write(make_certificate("localhost"))
        await trio.sleep(1.01 * limits.CERTIFICATE_POLL_INTERVAL)
        assert tunnel.server.tls.leaf == leaf_der(files.cert)
