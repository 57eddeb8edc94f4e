"""`tls-tunnel reload`: have a running program do what its file says now, or say what it would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tunnel.cli.options import Config
from tunnel.errors import StoreError, TunnelError

#: The fields of `Changes`, in words.
_PARTS: Final = {
    "added": "added",
    "removed": "removed",
    "moved": "published elsewhere",
    "changed": "changed",
    "live": "at once",
    "anew": "with a new connection to the server",
    "restart": "only with a restart",
}
#: The keys of `affected_connections`, in words.
_FATES: Final = {
    "cut": "are cut",
    "finish": "finish by themselves, on ports that go away",
    "stay": "go on as they are, at proxies that change",
}


def reload(
    config: Config,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would change.")] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the program keeps its state. [as configured]"),
    ] = None,
) -> None:
    """Have the program that runs with this file do what it says now."""
    from tunnel.ops.control import ask, control_path

    directory = state_dir or _state_directory(config)
    try:
        answer = ask(control_path(directory, config), "plan" if plan else "reload")
    except StoreError as error:
        raise StoreError(
            f"{error}; if it runs as another user or as a service, say where its state is with "
            "--state-dir, or send it SIGHUP (systemctl reload)"
        ) from error
    if "error" in answer:
        raise TunnelError(str(answer["error"]))
    print(describe(answer), end="")


def _state_directory(source: Path) -> Path:
    from tunnel import store
    from tunnel.cli.loading import load_client, load_server, read_text
    from tunnel.config import Kind, detect

    server = detect(read_text(source)) is Kind.SERVER
    config = load_server(source) if server else load_client(source)
    base = source.absolute().parent
    return store.state_directory(config.state_dir, base=base, environ=os.environ)


def describe(answer: dict[str, Any]) -> str:
    """Write what a program answered as lines for people.

    Args:
      answer: the fields of `Changes`, and `connections`: how many, by what becomes of them.
    """
    lines = [
        f"{words}: {', '.join(answer[key])}" for key, words in _PARTS.items() if answer.get(key)
    ]
    connections = answer.get("connections", {})
    lines += [f"live connections that {_FATES[fate]}: {n}" for fate, n in connections.items() if n]
    return "\n".join(lines or ["nothing is different"]) + "\n"
