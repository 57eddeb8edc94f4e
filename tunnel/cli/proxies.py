"""`tls-tunnel proxy`: what a client's file publishes, changed without touching the rest of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from tunnel import store
from tunnel.cli.loading import read_text
from tunnel.config import ClientConfig
from tunnel.config.edit import add_proxy, remove_proxy
from tunnel.config.load import load_client
from tunnel.errors import StoreError
from tunnel.library.arguments import local_address, proxy_config


def add(path: Path, name: str, target: str, port: int) -> str:
    """Write one more proxy into a client's file; returns what to tell.

    Raises:
      ConfigError: the file or the proxy has faults; nothing was written.
      StoreError: the file cannot be read or written.
    """
    keys = {"name": name, "publish_port": port, **local_address(target)}
    proxy = proxy_config(keys, "proxy add")
    text = add_proxy(read_text(path, "client"), proxy, source=str(path), environ=os.environ)
    replace(path, text)
    return f"added {name} to {path}; {_when(path)}"


def remove(path: Path, name: str) -> str:
    """Take a proxy out of a client's file; returns what to tell.

    Raises:
      ConfigError: the file has faults, or cannot do without that proxy; nothing was written.
      StoreError: the file cannot be read or written.
    """
    text = remove_proxy(read_text(path, "client"), name, source=str(path), environ=os.environ)
    replace(path, text)
    return f"removed {name} from {path}; {_when(path)}"


def found(path: Path) -> list[dict[str, Any]]:
    """What a client's file publishes, as it stands there.

    Raises:
      ConfigError: the file has faults.
      StoreError: it cannot be read.
    """
    return [
        {
            "name": proxy.name,
            "publish_addr": proxy.publish_addr,
            "publish_port": proxy.publish_port,
            "local_addr": proxy.local_addr,
            "local_port": proxy.local_port,
        }
        for proxy in _load(path).proxies
    ]


def as_text(proxies: list[dict[str, Any]]) -> str:
    """The same for people: a line for each."""
    return "".join(f"{each['name']}  {_public(each)} -> {_local(each)}\n" for each in proxies)


def _public(proxy: dict[str, Any]) -> str:
    return f"{proxy['publish_addr']}:{proxy['publish_port'] or 'any'}"


def _local(proxy: dict[str, Any]) -> str:
    port = proxy["local_port"]
    return proxy["local_addr"] if port is None else f"{proxy['local_addr']}:{port}"


def _load(path: Path) -> ClientConfig:
    text = read_text(path, "client")
    return load_client(text, source=str(path), environ=os.environ, idle=True).value


def _when(path: Path) -> str:
    if _load(path).watch:
        return "a client that runs with this file does so at once"
    return f"for a client that runs with it: tls-tunnel reload -c {path}"


def replace(path: Path, text: str) -> None:
    """Write the file whole or not at all, behind a link to it, with its mode as it was.

    Raises:
      StoreError: it cannot be written, or is somebody else's.
    """
    path = path.resolve()
    before = path.stat()
    if before.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user, who would lose it: edit it as that user")
    store.write_atomic(store.File(path, text.encode(), stat.S_IMODE(before.st_mode)))
