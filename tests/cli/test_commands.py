from __future__ import annotations

import json
import os
import re
import stat
import tomllib

import pytest
from cryptography import x509
from trio_util import AsyncValue

from tunnel import store
from tunnel.cli import templates
from tunnel.cli.commands.client import client_status
from tunnel.cli.commands.server import server_status
from tunnel.errors import StoreError
from tunnel.model import Address
from tunnel.net.contexts import server_tls
from tunnel.protocol.keys import Verifier, derive, generate_key, is_generated_key
from tunnel.stats import Counters
from tunnel.views import (
    ClientHandle,
    ClientState,
    ProxyStatistics,
    ServerHandle,
    SessionStatistics,
)

PIN = "sha256:" + "0123456789abcdef" * 4
PAIR = ("server.toml", "client.toml", "cert.pem", "key.pem")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def snapshot(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# --- keygen


def test_keygen_prints_a_new_strong_key(run):
    one, other = (run("keygen").stdout for _ in range(2))
    assert is_generated_key(one.removesuffix("\n"))
    assert one != other


def test_keygen_prints_a_key_and_its_verifier_as_they_go_into_the_files(run):
    shown = tomllib.loads(run("keygen", "--verifier").stdout)
    assert list(shown) == ["auth_key", "verifier"]
    assert Verifier.from_text(shown["verifier"]) == derive(shown["auth_key"]).verifier


@pytest.mark.parametrize("key", ["correct-horse-battery-staple", generate_key(b"k" * 32)])
def test_keygen_prints_the_verifier_of_a_key_that_is_there(run, tmp_path, key):
    path = write(tmp_path / "auth.key", key + "\n")
    result = run("keygen", "--verifier", "--key-file", path)
    assert result.stdout == f'verifier = "{derive(key).verifier.to_text()}"\n'
    assert key not in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("short", "holds 5 characters"),
        ("ttk1_abcdefghijklmnop", "its checksum is wrong"),
        ("ttv1_abcdefghijklmnop", "is a verifier and no key"),
    ],
)
def test_keygen_of_what_is_no_key(run, tmp_path, text, message):
    path = write(tmp_path / "auth.key", text)
    result = run("keygen", "--verifier", "--key-file", path, exit_code=1)
    assert message in result.stderr
    assert result.stdout == ""


def test_keygen_of_a_file_is_for_verifiers(run):
    assert "is for --verifier" in run("keygen", "--key-file", "x", exit_code=2).stderr


# --- cert


def test_cert_writes_a_pair_that_works(run, tmp_path):
    shown = run("cert").stdout
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    server_tls(cert, key)
    assert (mode(cert), mode(key)) == (0o644, 0o600)
    der = store.leaf_der(cert)
    assert f"fingerprint  {store.fingerprint(der)}\n" in shown
    assert f"pin                  {store.spki_pin(der)}\n" in shown


def test_cert_names(run, tmp_path):
    run(
        "cert", "--cert-out", "a.pem", "--key-out", "b.pem", "--common-name", "example.org",
        "--alt-names", "192.0.2.1, ::1,,www.example.org",
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"a.pem", "b.pem"}
    certificate = x509.load_pem_x509_certificate((tmp_path / "a.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == [
        "example.org", "192.0.2.1", "::1", "www.example.org",
    ]  # fmt: skip


def test_cert_with_a_bad_name_writes_nothing(run, tmp_path):
    result = run("cert", "--alt-names", "two words", exit_code=1)
    assert result.stderr.startswith("error: 'two words' cannot be a name in a certificate")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("existing", ["cert.pem", "key.pem"])
def test_cert_does_not_overwrite_unless_told_to(run, tmp_path, existing):
    (tmp_path / existing).write_text("old")
    result = run("cert", exit_code=1)
    assert existing in result.stderr
    assert "--force" in result.stderr
    assert snapshot(tmp_path) == {existing: b"old"}
    run("cert", "--force")
    server_tls(tmp_path / "cert.pem", tmp_path / "key.pem")


# --- template


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_template_is_valid_and_has_a_key_of_its_own(run, tmp_path, kind):
    result = run("template", kind)
    value = tomllib.loads(result.stdout)[kind]
    assert is_generated_key(value["auth_key"])
    assert result.stderr == "note: this auth_key is new; the other side needs the same one\n"
    path = tmp_path / f"{kind}.toml"
    path.write_text(result.stdout)
    path.chmod(0o600)
    assert run("check", "-c", path).stdout == f"{path}: a {kind}'s configuration, valid\n"
    assert tomllib.loads(run("template", kind).stdout)[kind]["auth_key"] != value["auth_key"]


def test_a_template_is_made_of_what_is_given(run):
    result = run(
        "template", "client", "--key", "k" * 16, "--server", "[2001:db8::1]:99", "--pin", PIN
    )
    value = tomllib.loads(result.stdout)["client"]
    assert value["auth_key"] == "k" * 16
    assert (value["server_addr"], value["server_port"]) == ("2001:db8::1", 99)
    assert value["pin"] == PIN
    assert result.stderr == ""
    server = run("template", "server", "--key", "k" * 16, "--server", "example.org:99")
    assert tomllib.loads(server.stdout)["server"]["bind_port"] == 99
    assert server.stderr == ""


def test_a_template_file_is_for_its_owner_and_not_overwritten(run, tmp_path):
    path = tmp_path / "server.toml"
    assert run("template", "server", "-o", path).stdout == ""
    assert mode(path) == 0o600
    before = path.read_bytes()
    result = run("template", "server", "-o", path, exit_code=1)
    assert f"there is {path} already" in result.stderr
    assert path.read_bytes() == before
    run("template", "server", "-o", path, "--force")
    assert path.read_bytes() != before


def test_a_dangling_link_is_a_file_too(run, tmp_path):
    (tmp_path / "server.toml").symlink_to("elsewhere")
    run("template", "server", "-o", "server.toml", exit_code=1)
    assert (tmp_path / "server.toml").is_symlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--key", "short"], "client template:.*auth_key.*16 characters"),
        (["--key", ""], "client template:.*auth_key.*16 characters"),
        (["--pin", "sha256:12"], "client template:.*pin"),
    ],
)
def test_a_template_that_would_not_load_is_not_written(run, tmp_path, options, message):
    result = run("template", "client", "-o", "client.toml", *options, exit_code=1)
    assert re.search(message, result.stderr)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [[], ["both"], ["server", "--pin", PIN], ["client", "--server", "https://example.org"]],
)
def test_wrong_usage_of_template(run, arguments):
    run("template", *arguments, exit_code=2)


# --- init


def test_init_makes_a_pair_that_fits(run, tmp_path):
    shown = run("init", "new/pair", "--server", "tunnel.example.org:9000").stdout
    made = tmp_path / "new" / "pair"
    assert sorted(snapshot(made)) == sorted(PAIR)
    assert {mode(made / name) for name in PAIR} == {0o600}
    server = tomllib.loads((made / "server.toml").read_text())["server"]
    client = tomllib.loads((made / "client.toml").read_text())["client"]
    assert is_generated_key(server["auth_key"])
    assert server["auth_key"] == client["auth_key"]
    assert (client["server_addr"], client["server_port"]) == ("tunnel.example.org", 9000)
    assert server["bind_port"] == 9000
    server_tls(made / server["cert_path"], made / server["key_path"])
    assert client["pin"] == store.spki_pin(store.leaf_der(made / server["cert_path"]))
    assert "tls-tunnel server -c new/pair/server.toml" in shown
    assert server["auth_key"] not in shown
    for name in ("server.toml", "client.toml"):
        assert json.loads(run("check", "-c", made / name, "--format", "json").stdout)["valid"]


def test_init_is_for_this_directory_and_this_machine(run, tmp_path):
    run("init")
    assert sorted(snapshot(tmp_path)) == sorted(PAIR)
    client = tomllib.loads((tmp_path / "client.toml").read_text())["client"]
    assert client["server_addr"] == "localhost"


@pytest.mark.parametrize("existing", PAIR)
def test_init_writes_all_or_nothing(run, tmp_path, existing):
    (tmp_path / existing).write_text("old")
    assert existing in run("init", exit_code=1).stderr
    assert snapshot(tmp_path) == {existing: b"old"}
    run("init", "--force")
    assert sorted(snapshot(tmp_path)) == sorted(PAIR)
    assert snapshot(tmp_path)[existing] != b"old"


def test_init_names_a_directory_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").touch()
    result = run("init", "file/below", exit_code=1)
    assert result.stderr == "error: cannot make the directory file/below: Not a directory\n"


def test_refusing_names_only_what_is_there(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(StoreError) as caught:
        templates.refuse_overwriting([tmp_path / "a", tmp_path / "b"], force=False)
    assert str(tmp_path / "a") in str(caught.value)
    assert str(tmp_path / "b") not in str(caught.value)


# --- check


def write(path, text, bits=0o600):
    path.write_text(text)
    path.chmod(bits)
    return path


FAULTY = '[server]\nbind_port = "x"\nauth_key = "short"\nunheard_of = 1\n'


def test_check_says_every_fault_with_its_line(run, tmp_path):
    path = write(tmp_path / "server.toml", FAULTY)
    result = run("check", "-c", path, exit_code=1)
    for place in (":2: server.bind_port: ", ":3: server.auth_key: ", ":4: server.unheard_of: "):
        assert f"{path}{place}" in result.stdout
    assert "Traceback" not in result.output


def test_check_notices_a_mistyped_key(run, tmp_path):
    path = tmp_path / "server.toml"
    run("template", "server", "-o", path)
    text = path.read_text()
    start = text.index("ttk1_") + 9
    path.write_text(text[:start] + ("b" if text[start] == "a" else "a") + text[start + 1 :])
    line = text[:start].count("\n") + 1
    output = run("check", "-c", path, exit_code=1).output
    assert f"server.toml:{line}: server.auth_key: the key begins with ttk1_ and its" in output


@pytest.mark.parametrize("secret", ["auth_key", "verifier"])
def test_check_notices_a_mistyped_key_of_a_client(run, tmp_path, secret):
    good = generate_key(b"g" * 32)
    bad = good if secret == "auth_key" else derive(good).verifier.to_text()
    bad = bad[:-1] + ("b" if bad[-1] == "a" else "a")
    text = f'[server]\n[[server.clients]]\nname = "a"\nauth_key = "{good}"\n'
    text += f'[[server.clients]]\nname = "b"\n{secret} = "{bad}"\n'
    output = run("check", "-c", write(tmp_path / "s.toml", text), exit_code=1).output
    assert f"s.toml:7: server.clients[1].{secret}: " in output
    assert "copy it again" in output
    assert bad not in output
    assert "1 error" in output


def test_check_for_programs(run, tmp_path):
    path = write(tmp_path / "server.toml", FAULTY)
    shown = json.loads(run("check", "-c", path, "--format", "json", exit_code=1).stdout)
    assert (shown["valid"], shown["config_type"]) == (False, "server")
    assert [(error["line"], error["key"]) for error in shown["errors"]] == [
        (2, "server.bind_port"),
        (3, "server.auth_key"),
        (4, "server.unheard_of"),
    ]
    assert shown["warnings"] == []


@pytest.mark.parametrize("text", ["", "[other]\n", "[server\n", "a = 1\n"])
def test_check_of_what_is_no_configuration(run, tmp_path, text):
    path = write(tmp_path / "x.toml", text)
    run("check", "-c", path, exit_code=1)
    shown = json.loads(run("check", "-c", path, "--format", "json", exit_code=1).stdout)
    assert not shown["valid"]
    assert shown["errors"]


def test_check_of_a_file_that_is_not_there(run):
    result = run("check", "-c", "x.toml", exit_code=1)
    assert result.stderr == (
        "error: there is no file x.toml; "
        "write one with: tls-tunnel template server|client -o x.toml\n"
    )
    shown = json.loads(run("check", "-c", "x.toml", "--format", "json", exit_code=1).stdout)
    assert (shown["valid"], shown["config_type"]) == (False, "unknown")
    assert "there is no file x.toml" in shown["errors"][0]["message"]


def test_check_of_bytes_that_are_not_text(run, tmp_path):
    (tmp_path / "x.toml").write_bytes(b"[server]\n\xff")
    assert "x.toml:2: this is not UTF-8 text" in run("check", "-c", "x.toml", exit_code=1).stderr


def test_check_of_a_directory(run):
    assert "cannot read" in run("check", "-c", ".", exit_code=1).stderr


def test_check_needs_a_file(run):
    run("check", exit_code=2)


def checked_warnings(run, path):
    shown = json.loads(run("check", "-c", path, "--format", "json").stdout)
    assert shown["valid"]
    return [(warning["key"], warning["message"]) for warning in shown["warnings"]]


def test_check_warns_of_an_exposed_key(run, tmp_path, monkeypatch):
    path = write(tmp_path / "server.toml", f'[server]\nauth_key = "{"k" * 20}"\n', 0o644)
    [(key, message)] = checked_warnings(run, path)
    assert key == "auth_key"
    assert f"chmod 600 {path}" in message
    path.chmod(0o600)
    assert checked_warnings(run, path) == []


@pytest.mark.parametrize("secret", ["auth_key", "verifier"])
def test_check_warns_of_exposed_keys_of_clients(run, tmp_path, monkeypatch, secret):
    key = generate_key(b"g" * 32)
    value = key if secret == "auth_key" else derive(key).verifier.to_text()
    text = f'[server]\n[[server.clients]]\nname = "a"\n{secret} = "{value}"\n'
    [(_, message)] = checked_warnings(run, write(tmp_path / "server.toml", text, 0o644))
    assert "chmod 600" in message


def test_check_warns_of_key_files_of_clients(run, tmp_path):
    text = '[server]\nclient_ca_path = "ca.pem"\n[[server.clients]]\nname = "a"\n'
    path = write(tmp_path / "server.toml", text + 'auth_key_file = "a.key"\n')
    warnings = dict(checked_warnings(run, path))
    assert set(warnings) == {"client_ca_path", "server.clients[0].auth_key_file"}
    write(tmp_path / "a.key", "k" * 20, 0o644)
    write(tmp_path / "ca.pem", "", 0o644)
    [(key, message)] = checked_warnings(run, path)
    assert key == "server.clients[0].auth_key_file"
    assert f"chmod 600 {tmp_path / 'a.key'}" in message


def test_check_looks_at_visitor_secrets(run, tmp_path):
    """Of the file that holds one, of a file that it names, and at one that was mistyped."""
    text = (
        '[client]\nserver_addr = "x"\nauth_key_file = "a.key"\n'
        '[[visitors]]\nname = "db"\npublish_port = 1\nbind_port = 1\n{}\n'
    )
    write(tmp_path / "a.key", "k" * 20, 0o600)
    secret = generate_key(b"s" * 32)
    path = write(tmp_path / "client.toml", text.format(f'visitor_secret = "{secret}"'), 0o644)
    [(key, message)] = checked_warnings(run, path)
    assert (key, "chmod 600" in message) == ("visitor_secret", True)
    write(path, text.format('visitor_secret_file = "db.secret"'), 0o644)
    [(key, message)] = checked_warnings(run, path)
    assert (key, "there is no file" in message) == ("visitors[0].visitor_secret_file", True)
    write(tmp_path / "db.secret", "k" * 20, 0o644)
    [(key, message)] = checked_warnings(run, path)
    assert (key, "chmod 600" in message) == ("visitors[0].visitor_secret_file", True)
    write(path, text.format(f'visitor_secret = "{secret[:-1]}"'), 0o600)
    result = run("check", "-c", str(path), "--format", "json", exit_code=1)
    [error] = json.loads(result.stdout)["errors"]
    assert (error["key"], error["line"]) == ("visitors[0].visitor_secret", 8)
    assert "checksum is wrong" in error["message"]


def test_a_file_without_the_key_may_be_open(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TLS_TUNNEL_AUTH_KEY", "k" * 20)
    assert checked_warnings(run, write(tmp_path / "server.toml", "[server]\n", 0o644)) == []


def test_check_warns_of_files_that_are_missing_or_exposed(run, tmp_path):
    path = write(
        tmp_path / "server.toml",
        '[server]\nauth_key_file = "auth.key"\ncert_path = "cert.pem"\nkey_path = "~nobody-/x"\n',
    )
    write(tmp_path / "auth.key", "k" * 20, 0o644)
    warnings = dict(checked_warnings(run, path))
    assert f"chmod 600 {tmp_path / 'auth.key'}" in warnings["auth_key_file"]
    assert f"there is no file {tmp_path / 'cert.pem'}" in warnings["cert_path"]
    assert "~nobody-" in warnings["key_path"]


# --- server and client


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_program_without_its_file_says_how_to_make_one(run, kind):
    result = run(kind, exit_code=1)
    assert result.stderr == (
        f"error: there is no file {kind}.toml; "
        f"write one with: tls-tunnel template {kind} -o {kind}.toml\n"
    )


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_program_with_a_faulty_file_shows_the_faults(run, tmp_path, kind):
    path = write(tmp_path / "a.toml", f'[{kind}]\nauth_key = "short"\n')
    result = run(kind, "-c", path, exit_code=1)
    assert f"error: {path}:2: {kind}.auth_key: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_program_with_a_bad_environment_does_not_start(run, tmp_path, monkeypatch):
    run("init")
    monkeypatch.setenv("TLS_TUNNEL_LOG_FORMAT", "xml")
    assert "TLS_TUNNEL_LOG_FORMAT" in run("server", exit_code=1).stderr
    monkeypatch.delenv("TLS_TUNNEL_LOG_FORMAT")
    monkeypatch.setenv("TLS_TUNNEL_RECONNECT_DELAY_SECS", "soon")
    assert "TLS_TUNNEL_RECONNECT_DELAY_SECS" in run("client", exit_code=1).stderr


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_program_runs_with_its_configuration(run, tmp_path, monkeypatch, kind):
    calls = []
    monkeypatch.setattr(f"tunnel.cli.commands.{kind}.run", lambda *given: calls.append(given))
    run("init", "--server", "example.org:1")
    (tmp_path / f"{kind}.toml").chmod(0o644)
    result = run("--log-format", "json", kind)
    [(config, source)] = calls
    assert is_generated_key(config.auth_key)
    assert os.fspath(source) == f"{kind}.toml"
    [warning] = map(json.loads, result.stderr.splitlines())
    assert (warning["level"], warning["event"]) == ("warning", "Configuration")
    assert "chmod 600" in warning["warning"]
    assert config.auth_key not in result.output


def test_a_failed_start_is_1_and_has_no_traceback(run, monkeypatch):
    def serve(config, source):
        raise StoreError("could not start: no port")

    monkeypatch.setattr("tunnel.cli.commands.server.run", serve)
    run("init")
    assert run("server", exit_code=1).stderr == "error: could not start: no port\n"


def proxies(*published):
    return tuple(
        ProxyStatistics(
            "web", (Address("192.0.2.1", 80),) * there, 80, 0.0, Counters().statistics()
        )
        for there in published
    )


def test_what_a_server_is_doing():
    session = SessionStatistics("tests", Address("192.0.2.2", 1), "00", 3, None, proxies(1, 1))
    handle = ServerHandle((), "", lambda: (session, session), None, None, None)
    assert server_status(handle) == "2 clients, 4 proxies, 6 visitors"


def test_what_a_client_is_doing():
    handle = ClientHandle(AsyncValue(ClientState.WAITING), lambda: proxies(1, 0, 1), None)
    assert client_status(handle) == "waiting, 2 proxies published"
