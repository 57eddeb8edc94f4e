"""Units: what they say, and that systemd agrees."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.needs import needs
from tunnel.ops.units import Service, edited, name_fault, path_fault, unit_text

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = needs("systemd-analyze", "systemd")

SERVER = Service(
    name="tls-tunnel-server",
    description="tls-tunnel server (server.toml)",
    command=("/bin/true", "server", "-c", "/etc/tls-tunnel/server.toml"),
    config=Path("/etc/tls-tunnel/server.toml"),
    files=(Path("/etc/tls-tunnel/key.pem"),),
    grace=10,
)
SERVICES = {
    "plain": SERVER,
    "low-ports": attrs.evolve(SERVER, low_ports=True),
    "closed": attrs.evolve(SERVER, closed=(Path("/srv/keys"),)),
    "sockets": attrs.evolve(SERVER, sockets=(Path("/home/me/app"),)),
    "group": attrs.evolve(SERVER, group="daemon", low_ports=True),
    "own": attrs.evolve(SERVER, own=True),
    "spaces": Service(
        name="tls-tunnel-server",
        description="tls-tunnel server (my server.toml)",
        command=("/bin/true", "server", "-c", "/srv/my ä/my server.toml"),
        config=Path("/srv/my ä/my server.toml"),
        files=(Path("/srv/my ä/its key.pem"),),
        closed=(Path("/srv/my ä"),),
        sockets=(Path("/home/me/my app"),),
    ),
}
SYSTEM = {name: service for name, service in SERVICES.items() if not service.own}


def lines(service):
    """The unit as systemd reads it: (section, key) to the list of values."""
    found, section = {}, ""
    for line in unit_text(service).splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault((section, key), []).append(value)
    return found


def option(service, key):
    return lines(service).get(("Service", key))


# --- What is in it ----------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_unit_is_watched_restarted_and_confined(service):
    assert option(service, "Type") == ["notify"]
    [start] = option(service, "ExecStart")
    assert tuple(shlex.split(start)) == service.command
    assert option(service, "Restart") == ["on-failure"]
    assert option(service, "WatchdogSec") == ["30"]
    assert option(service, "NoNewPrivileges") == ["yes"]
    assert option(service, "RestrictAddressFamilies") == ["AF_INET AF_INET6 AF_UNIX"]
    assert option(service, "SystemCallFilter") == ["@system-service", "~@privileged @resources"]


@pytest.mark.parametrize("service", SYSTEM.values(), ids=SYSTEM)
def test_a_service_of_the_system_has_a_user_of_its_own(service):
    assert option(service, "DynamicUser") == ["yes"]
    assert option(service, "StateDirectory") == ["tls-tunnel-server"]
    assert option(service, "ProtectSystem") == ["strict"]
    assert option(service, "PrivateTmp") == ["yes"]
    assert int(option(service, "LimitNOFILE")[0]) > 65536
    assert lines(service)["Install", "WantedBy"] == ["multi-user.target"]


def test_it_gets_longer_to_stop_than_connections_get_to_finish():
    assert option(attrs.evolve(SERVER, grace=300.4), "TimeoutStopSec") == ["320"]


def test_capabilities_only_for_low_ports():
    assert option(SERVER, "CapabilityBoundingSet") == [""]
    assert option(SERVER, "AmbientCapabilities") == [""]
    assert option(SERVER, "PrivateUsers") == ["yes"]
    low = SERVICES["low-ports"]
    assert option(low, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert option(low, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert option(low, "PrivateUsers") is None


def test_files_are_handed_over_and_stand_at_their_own_paths():
    assert option(SERVER, "LoadCredential") == [
        "file0:/etc/tls-tunnel/server.toml",
        "file1:/etc/tls-tunnel/key.pem",
    ]
    assert option(SERVER, "BindReadOnlyPaths") == [
        "%d/file0:/etc/tls-tunnel/server.toml",
        "%d/file1:/etc/tls-tunnel/key.pem",
    ]
    assert option(SERVICES["closed"], "TemporaryFileSystem") == ["/srv/keys:ro"]


def test_a_path_with_a_space_is_quoted_where_spaces_part_words():
    service = SERVICES["spaces"]
    path, key = "/srv/my ä/my server.toml", "/srv/my ä/its key.pem"
    assert option(SERVER, "ExecStart") == ["/bin/true server -c /etc/tls-tunnel/server.toml"]
    assert option(service, "ExecStart") == [f'/bin/true server -c "{path}"']
    assert option(service, "LoadCredential") == [f"file0:{path}", f"file1:{key}"]
    assert option(service, "TemporaryFileSystem") == ['"/srv/my ä:ro"']
    assert option(service, "BindReadOnlyPaths") == [
        f'%d/file0:"{path}"',
        f'%d/file1:"{key}"',
        '"-/home/me/my app"',
    ]


def test_homes_are_empty_but_for_the_sockets_of_local_services():
    service = SERVICES["sockets"]
    assert option(service, "ProtectHome") == ["tmpfs"]
    assert "-/home/me/app" in option(service, "BindReadOnlyPaths")


def test_only_files_that_are_read_in_place_can_be_reloaded():
    reload = ["/bin/kill -HUP $MAINPID"]
    assert option(SERVER, "ExecReload") is None
    assert option(SERVICES["group"], "ExecReload") == reload
    assert option(SERVICES["own"], "ExecReload") == reload
    assert option(SERVICES["group"], "LoadCredential") is None
    assert option(SERVICES["group"], "SupplementaryGroups") == ["daemon"]


def test_a_user_s_service_asks_for_nothing_that_its_manager_cannot_give():
    found = lines(SERVICES["own"])
    keys = {key for _, key in found}
    assert not keys & {"DynamicUser", "LoadCredential", "ProtectSystem", "CapabilityBoundingSet"}
    assert ("Unit", "After") not in found
    assert found["Install", "WantedBy"] == ["default.target"]


# --- What systemd says ------------------------------------------------------------------------


def analyze(tmp_path, service, *words):
    unit = tmp_path / f"{service.name}.service"
    unit.write_text(unit_text(service))
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [ANALYZE, *words, unit], capture_output=True, text=True, env=environment, timeout=30
    )


@needs_systemd
@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_systemd_understands_every_line(tmp_path, service):
    done = analyze(tmp_path, service, "verify", "--man=no", *(["--user"] * service.own))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_would_have_said_so(tmp_path):
    wrong = attrs.evolve(SERVER, description="x\nProtectSystem=strict")
    assert "Unknown key" in analyze(tmp_path, wrong, "verify", "--man=no").stderr


@needs_systemd
@pytest.mark.parametrize("service", SYSTEM.values(), ids=SYSTEM)
def test_systemd_finds_little_that_is_exposed(tmp_path, service):
    done = analyze(tmp_path, service, "security", "--offline=true", "--threshold=20", "--no-pager")
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout


# --- Whose it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_unit_is_known_again(service):
    assert not edited(unit_text(service))


@given(st.data())
def test_any_change_is_noticed(data):
    text = unit_text(SERVER)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 20))
    changed = text[:at] + data.draw(st.text(max_size=20)) + text[at + cut :]
    assert edited(changed) == (changed != text)


@pytest.mark.parametrize("name", ["a", "tls-tunnel-server", "Office_2.west", "9"])
def test_good_names(name):
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", "-a", "../a", "a/b", "a b", "a@b", "a%n", "a\n", "ü", "a" * 65]
)
def test_bad_names(name):
    assert "letter or digit" in name_fault(name)


@pytest.mark.parametrize(
    "path", ["/etc/tls-tunnel/server.toml", "/srv/隧道/a+b,c=d~e@f.pem", "/srv/a b/ c"]
)
def test_good_paths(path):
    assert path_fault(Path(path)) is None


@pytest.mark.parametrize("sign", [*"\t\n\\\"'%$:;#*?[", "\x1b", "\u202e"])
def test_bad_paths(sign):
    assert repr(sign) in path_fault(Path(f"/etc/a{sign}b"))


def test_a_space_at_the_end():
    assert "' '" in path_fault(Path("/etc/a "))
