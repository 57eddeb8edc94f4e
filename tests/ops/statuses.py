"""Answers of `/status`, made up."""

from __future__ import annotations


def proxy(name="web", sent=0, received=0, **more):
    return {
        "name": name,
        "publish_addr": "0.0.0.0",
        "publish_port": 8080,
        "addresses": ["0.0.0.0:8080"],
        "client": "office",
        "session": "abcd1234",
        "active_connections": 1,
        "total_connections": 9,
        "bytes_sent": sent,
        "bytes_received": received,
        "start_time": 0.0,
        "rtt": 0.021,
    } | more


def connection(number, waits="link", **more):
    return {
        "connection": f"{number:016x}",
        "proxy": "web",
        "client": "office",
        "visitor": "198.51.100.9",
        "waits": waits,
        "parked": 0,
        "queued": 262_144,
    } | more


def status(*proxies, at=1000.0, connections=(), **more):
    return {
        "role": "server",
        "version": "1.0",
        "state": "running",
        "name": None,
        "started": 0.0,
        "now": at,
        "process": "0123456789abcdef",
        "loop_lag": 0.0004,
        "certificate_expires": at + 90 * 86400,
        "totals": {
            "active_connections": sum(each["active_connections"] for each in proxies),
            "bytes_sent": sum(each["bytes_sent"] for each in proxies),
            "bytes_received": sum(each["bytes_received"] for each in proxies),
        },
        "sessions": [
            {
                "client": "office",
                "address": "203.0.113.7:55121",
                "since": at - 60,
                "rtt": 0.021,
                "connections": 4,
                "queued": 0,
                "blocked": False,
                "proxies": len(proxies),
            }
        ],
        "proxies": list(proxies),
        "connections": {
            "total": len(connections),
            "waits": {"visitor": 0, "link": len(connections)},
            "shown": list(connections),
        },
    } | more
