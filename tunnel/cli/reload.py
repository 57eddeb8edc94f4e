"""`tls-tunnel reload`: have a running program do what its file says now, or say what it would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from tunnel import store
from tunnel.cli.loading import load_client, load_server, read_text
from tunnel.config import Kind
from tunnel.config.load import detect
from tunnel.errors import StoreError, TunnelError
from tunnel.ops.control import ask, control_path

_PARTS: Final = {
    "added": "added",
    "removed": "removed",
    "moved": "published elsewhere",
    "changed": "changed",
    "live": "at once",
    "anew": "with a new connection to the server",
    "restart": "only with a restart",
}
_FATES: Final = {
    "cut": "are cut",
    "finish": "finish by themselves, on ports that go away",
    "stay": "go on as they are, at proxies that change",
}


def reload(source: Path, *, plan: bool, state_dir: Path | None) -> str:
    """What the running program changes, or with `plan` would change, as lines for people.

    Raises:
      TunnelError: the file has faults, or no program runs with it.
    """
    directory = state_dir or _state_directory(source)
    try:
        answer = ask(control_path(directory, source), "plan" if plan else "reload")
    except StoreError as error:
        raise StoreError(
            f"{error}; if it runs as another user or as a service, say where its state is with "
            "--state-dir, or send it SIGHUP (systemctl reload)"
        ) from error
    if "error" in answer:
        raise TunnelError(str(answer["error"]))
    return describe(answer)


def _state_directory(source: Path) -> Path:
    kind = detect(read_text(source))
    config = load_server(source) if kind is Kind.SERVER else load_client(source)
    beside = source.absolute().parent
    return store.state_directory(config.state_dir, beside=beside, environ=os.environ)


def describe(answer: dict[str, Any]) -> str:
    """An answer as lines for people."""
    lines = [
        f"{words}: {', '.join(answer[key])}" for key, words in _PARTS.items() if answer.get(key)
    ]
    connections = answer.get("connections", {})
    lines += [f"live connections that {_FATES[fate]}: {n}" for fate, n in connections.items() if n]
    return "\n".join(lines or ["nothing is different"]) + "\n"
