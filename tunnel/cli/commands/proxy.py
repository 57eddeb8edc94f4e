"""`tls-tunnel proxy`: what a client's file publishes, changed without touching the rest of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunnel.cli.options import Config, Form, FormOption

if TYPE_CHECKING:
    from tunnel.config import ClientConfig, ProxyConfig


def proxy() -> None:
    """Add, remove or list what a client's file publishes; the rest of the file stays as it is."""


def add(
    name: Annotated[str, typer.Argument(help="Names it; unique.", show_default=False)],
    local: Annotated[
        str, typer.Option(metavar="TARGET", help="The service: PORT, HOST:PORT or unix:/path.")
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 takes any free one.")
    ] = 0,
    config: Config = Path("client.toml"),
) -> None:
    """Write one more proxy into a client's file."""
    from tunnel.config.edit import add_proxy
    from tunnel.library.arguments import local_address, proxy_config

    keys = {"name": name, "publish_port": port, **local_address(local)}
    _edit(config, add_proxy, proxy_config(keys, "proxy add"))
    print(f"added {name} to {config}; {_when(config)}")


def remove(
    name: Annotated[str, typer.Argument(help="Which.", show_default=False)],
    config: Config = Path("client.toml"),
) -> None:
    """Take a proxy out of a client's file, with the comment right above it."""
    from tunnel.config.edit import remove_proxy

    _edit(config, remove_proxy, name)
    print(f"removed {name} from {config}; {_when(config)}")


def _edit(config: Path, edit: Callable[..., str], what: ProxyConfig | str) -> None:
    """Have a function of `tunnel.config.edit` add or remove something in a client's file."""
    from tunnel.cli.loading import read_text, rewrite

    text = read_text(config, "client")
    rewrite(config, edit(text, what, source=str(config), environ=os.environ))


def show(config: Config = Path("client.toml"), form: FormOption = Form.TEXT) -> None:
    """Show what a client's file publishes."""
    import json

    proxies = [
        {
            "name": each.name,
            "publish_addr": each.publish_addr,
            "publish_port": each.publish_port,
            "local_addr": each.local_addr,
            "local_port": each.local_port,
        }
        for each in _load(config).proxies
    ]
    if form is Form.JSON:
        print(json.dumps(proxies, indent=2))
    else:
        print("\n".join(map(_line, proxies)))


def _line(proxy: dict[str, Any]) -> str:
    """A proxy for people."""
    public = f"{proxy['publish_addr']}:{proxy['publish_port'] or 'any'}"
    local, port = proxy["local_addr"], proxy["local_port"]
    return f"{proxy['name']}  {public} -> {local}" + ("" if port is None else f":{port}")


def _load(path: Path) -> ClientConfig:
    """Load a client's file, which may publish nothing yet."""
    from tunnel.cli.loading import read_text
    from tunnel.config import load_client

    text = read_text(path, "client")
    return load_client(text, source=str(path), environ=os.environ, idle=True).value


def _when(path: Path) -> str:
    """When a client that runs with the file does what it says now."""
    if _load(path).watch:
        return "a client that runs with this file does so at once"
    return f"for a client that runs with it: tls-tunnel reload -c {path}"
