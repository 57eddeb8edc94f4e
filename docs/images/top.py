"""Makes `top.svg`, the picture of `tls-tunnel top`: python docs/images/top.py"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

from rich.console import Console

from tunnel.ops.top import History, Status
from tunnel.ops.topview import Screen

PROXIES = (  # name, client, port, connections, bytes per second to visitors and from them
    ("backup", "office", 9001, 2, 64e6, 0.4e6),
    ("web", "office", 443, 41, 9.1e6, 0.8e6),
    ("database", "lab", 5432, 7, 1.2e6, 0.9e6),
    ("ssh", "home", 2222, 1, 2.1e3, 0.4e3),
    ("camera", "home", 8554, 0, 0, 0),
)
WAITING = (
    ("backup", "198.51.100.9", "3fa2c1d0985e7b64", "link", 0, 262_144),
    ("web", "2001:db8:17::5", "a91b6e0277c4d38f", "visitor", 1_310_720, 0),
)
SESSIONS = (  # name, address, seconds, round trip, connections, proxies, queued
    ("office", "203.0.113.7:55121", 261_000, 0.021, 43, 2, 262_144),
    ("lab", "192.0.2.44:40112", 3900, 0.134, 7, 1, 0),
    ("home", "[2001:db8::7]:50404", 800_000, 0.009, 1, 2, 0),
)


def status(second: int) -> dict[str, object]:
    swing = [1 + 0.4 * math.sin(n / 6) + 0.1 * math.sin(n * 1.7) for n in range(second)]
    carried = 40 + sum(swing)
    proxies = [
        {
            "name": name,
            "client": client,
            "session": client,
            "addresses": [f"0.0.0.0:{port}"],
            "active_connections": active,
            "total_connections": active * 7 + 3,
            "bytes_sent": sent * carried,
            "bytes_received": received * carried,
            "rtt": {one[0]: one[3] for one in SESSIONS}[client],
        }
        for name, client, port, active, sent, received in PROXIES
    ]
    connections = [
        dict(zip(("proxy", "visitor", "connection", "waits", "parked", "queued"), row, strict=True))
        | {"client": "office"}
        for row in WAITING
    ]
    sessions = [
        {"client": row[0], "address": row[1], "since": 1e9 + second - row[2], "rtt": row[3]}
        | dict(zip(("connections", "proxies", "queued"), row[4:], strict=True))
        | {"blocked": row[6] > 0}
        for row in SESSIONS
    ]
    return {
        "role": "server",
        "state": "running",
        "started": 1e9 - 800_100,
        "now": 1e9 + second,
        "process": "one",
        "totals": {
            "active_connections": sum(row[3] for row in PROXIES),
            "bytes_sent": sum(row[4] for row in PROXIES) * carried,
            "bytes_received": sum(row[5] for row in PROXIES) * carried,
        },
        "loop_lag": 0.0006,
        "certificate_expires": 1e9 + 75 * 86400,
        "proxies": proxies,
        "sessions": sessions,
        "connections": {"waits": {"link": 1, "visitor": 1}, "shown": connections},
    }


def picture() -> str:
    history = History()
    for second in range(60):
        history.add(Status.from_json(status(second)))
    console = Console(width=110, height=18, record=True, file=io.StringIO(), markup=False)
    console.print(Screen(history, "http://127.0.0.1:9090", 1.0).render(110, 18))
    svg = console.export_svg(title="tls-tunnel top", unique_id="top")
    # Without the fonts that it would fetch from somewhere: whoever has them sees them.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    Path(__file__).with_name("top.svg").write_text(picture(), encoding="utf-8")
