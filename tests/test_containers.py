"""The container example: its files fit together, and what it runs without Docker, runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tunnel.cli.loading import check
from tunnel.config import load_client, load_server

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/examples/container"
DOCKERFILE = (EXAMPLE / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def instructions():
    """The Dockerfile as (instruction, arguments), comments and continuations taken out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def arguments(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def copied():
    """What comes from the build's context."""
    lists = [line.split() for line in arguments("COPY") if not line.startswith("--from")]
    return {source for *sources, _ in lists for source in sources}


def test_the_image_has_all_that_a_wheel_is_made_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert copied() == needed
    assert all((ROOT / source).exists() for source in needed)


def test_nothing_else_is_sent_to_the_builder():
    lines = (EXAMPLE / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()


def test_the_image_does_not_run_as_root():
    [user] = arguments("USER")
    assert int(user.split(":")[0]) > 0
    names = [instruction for instruction, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    [made] = [line for line in arguments("RUN") if line.startswith("install -d")]
    words = shlex.split(made)
    assert words[words.index("-o") + 1] == user.split(":")[0]
    assert {"/etc/tls-tunnel", "/var/lib/tls-tunnel"} <= set(words)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_may_do_more_than_it_must(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_the_web_service_is_reached_by_the_tunnel_alone():
    assert SERVICES["web"]["networks"] == ["office"]
    assert COMPOSE["networks"]["office"]["internal"] is True
    assert "ports" not in SERVICES["web"]
    assert "office" not in SERVICES["server"]["networks"]


def test_everything_that_is_named_exists():
    build = SERVICES["setup"]["build"]
    context = EXAMPLE / build["context"]
    assert context.resolve() == ROOT
    assert (context / build["dockerfile"]).samefile(EXAMPLE / "Dockerfile")
    for service in SERVICES.values():
        assert set(service.get("networks", ())) <= set(COMPOSE["networks"])
        assert {volume.split(":")[0] for volume in service.get("volumes", ())} <= set(
            COMPOSE["volumes"]
        )
        assert set(service.get("depends_on", ())) <= set(SERVICES)


@pytest.fixture
def pair(tmp_path):
    """What the service `setup` writes."""
    [program, flags] = SERVICES["setup"]["entrypoint"]
    [script] = SERVICES["setup"]["command"]
    tool = tmp_path / "bin" / "tls-tunnel"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tunnel "$@"\n')
    tool.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    place = tmp_path / "etc"
    place.mkdir()
    for _ in range(2):  # the second time there is nothing to do
        subprocess.run(
            [program, flags, script.replace("$$", "$")],
            check=True,
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=30,
        )
    return place


def test_its_configurations_are_right(pair):
    for name in ("server.toml", "client.toml"):
        report = check(pair / name)
        assert report.valid
        assert not report.warnings
    server, client = (
        load((pair / name).read_text(), source=name, environ={}).value
        for load, name in ((load_server, "server.toml"), (load_client, "client.toml"))
    )
    assert client.server_addr == ("server",)
    [proxy] = client.proxies
    assert proxy.local_addr == "web"
    assert str(proxy.local_port) == SERVICES["web"]["entrypoint"][-1]
    assert SERVICES["server"]["ports"] == [f"{proxy.publish_port}:{proxy.publish_port}"]
    # And what is asked for a sign of life answers.
    [health] = re.findall(r"HEALTH=http://127\.0\.0\.1:(\d+)/healthz", DOCKERFILE)
    assert SERVICES["client"]["environment"]["HEALTH"] == f"http://127.0.0.1:{health}/readyz"
    assert server.stats_port == client.stats_port == int(health)


def test_it_stops_slower_than_the_server(pair):
    server = load_server((pair / "server.toml").read_text(), source="", environ={}).value
    assert int(SERVICES["server"]["stop_grace_period"].rstrip("s")) > server.shutdown_grace
