"""What `check` says, for people and for programs."""

from __future__ import annotations

import json

from tests.config.parts import check
from tunnel.config import Kind
from tunnel.config.report import dotted
from tunnel.errors import Fault

KEY = "correct-horse-battery-staple"

BROKEN = """\
[client]
server_addr = "a"
skip_verify = true
[[proxies]]
name = "web"
publish_prot = 1
local_port = 2
"""


def test_a_valid_file():
    report = check(f'[server]\nauth_key = "{KEY}"\n', environ={})
    assert report.kind is Kind.SERVER
    assert report.valid
    assert report.as_json() == {
        "valid": True,
        "config_type": "server",
        "errors": [],
        "warnings": [],
    }
    assert report.as_text("server.toml") == "server.toml: a server's configuration, valid"


def test_errors_and_warnings_together():
    report = check(BROKEN, environ={"TLS_TUNNEL_AUTH_KEY": KEY})
    assert not report.valid
    warning = "anyone on the way can pass for the server; a pin is as easy and safe"
    missing = "is missing: expected a port from 0 (any free one) to 65535"
    unknown = "unknown key; did you mean publish_port?"
    assert report.as_json() == {
        "valid": False,
        "config_type": "client",
        "errors": [
            {"line": 4, "key": "proxies[0].publish_port", "message": missing},
            {"line": 6, "key": "proxies[0].publish_prot", "message": unknown},
        ],
        "warnings": [{"line": 3, "key": "client.skip_verify", "message": warning}],
    }
    assert report.as_text("c.toml").splitlines() == [
        f"c.toml:4: proxies[0].publish_port: {missing}",
        f"c.toml:6: proxies[0].publish_prot: {unknown}",
        f"c.toml:3: client.skip_verify: warning: {warning}",
        "c.toml: a client's configuration, 2 errors",
    ]
    assert json.loads(json.dumps(report.as_json())) == report.as_json()


def test_nobodys_file():
    report = check("[sever]\n", environ={})
    assert report.kind is None
    assert report.as_json()["config_type"] == "unknown"
    assert report.errors == (
        Fault(1, "sever", "unknown table; did you mean server?"),
        Fault(
            None,
            None,
            "neither [server] nor [client] is there; `tls-tunnel template` prints either",
        ),
    )
    assert report.as_text("x").endswith("x: no configuration of tls-tunnel, 2 errors")


def test_a_broken_file_is_still_somebodys():
    report = check("[client]\nname = \n", environ={})
    assert report.kind is Kind.CLIENT
    assert report.as_text("c.toml").splitlines() == [
        "c.toml:2: not TOML, column 8: Invalid value (a text needs quotes)",
        "c.toml: a client's configuration, 1 error",
    ]


def test_keys_are_written_as_in_toml():
    assert dotted(("proxies", 1, "name")) == "proxies[1].name"
    assert dotted(("a.b", "c d", "")) == "'a.b'.'c d'.''"
    assert dotted(()) == ""
