"""Every block of code in the documents is good for what it is shown for.

Our own commands in blocks of `sh` and `console` are read by `test_docs.py` as well. Blocks of
`text` are output, pictures and other programs' files; those of `mermaid` the engine's tests check.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import json
import shlex
import subprocess
from pathlib import Path

import pytest
import tomlkit
import trio
import trio.lowlevel
import yaml

import tunnel
from tests.test_docs import BLOCK, DOCUMENTS, PROGRAMS, name
from tunnel import blocking
from tunnel.protocol.keys import derive, generate_key

KEY = generate_key(bytes(range(32)))
#: Where it is right that Python is not run here, and why.
NOT_RUN = {
    "docs/testing.md": "a test that needs fixtures; only compiled",
    "docs/testing-your-programs.md": "tests, which tests/testing/test_plugin.py runs as such",
    "docs/testing-your-programs.zh.md": "the same tests",
}
LANGUAGES = {"console", "ini", "json", "mermaid", "python", "sh", "text", "toml", "yaml"}
PAGES = [path for path in DOCUMENTS if BLOCK.search(path.read_text(encoding="utf-8"))]


def blocks(language: str) -> list[object]:
    """The blocks of that language, as parameters of a test."""
    found = []
    for path in PAGES:
        texts = [text for word, text in BLOCK.findall(path.read_text("utf-8")) if word == language]
        for number, text in enumerate(texts, 1):
            found.append(pytest.param(path, text, id=f"{name(path)}-{number}"))
    return found


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_block_says_what_it_is(path):
    found = {language for language, _ in BLOCK.findall(path.read_text(encoding="utf-8"))}
    assert found <= LANGUAGES


def completed(text: str) -> tuple[bool, str]:
    """Whether it is a server's file; and the fragment made whole, placeholders and all."""
    for word, value in {
        "ttk1_": KEY,
        "ttv1_": derive(KEY).verifier.to_text(),
        "sha256:": "sha256:" + "a" * 64,
    }.items():
        text = text.replace(f"{word}…", value).replace(f"{word}...", value)
    document = tomlkit.parse(text)
    is_server = "server" in document
    table = document.setdefault("server" if is_server else "client", tomlkit.table())
    if "auth_key_file" not in table and "clients" not in table:
        table.setdefault("auth_key", KEY)
    if not is_server:
        table.setdefault("server_addr", "tunnel.example.org")
        if not {"proxies", "visitors"} & document.keys():
            document["proxies"] = [{"name": "web", "publish_port": 8080, "local_port": 3000}]
    return is_server, tomlkit.dumps(document)


@pytest.mark.parametrize(("path", "text"), blocks("toml"))
def test_configurations_load(path, text):
    is_server, whole = completed(text)
    load = tunnel.load_server if is_server else tunnel.load_client
    assert load(whole, source=name(path), environ={}).warnings == ()


def test_a_wrong_configuration_is_noticed():
    with pytest.raises(tunnel.ConfigError):
        tunnel.load_client(completed("[client]\nserver_adr = 'x'")[1], source="x", environ={})


@pytest.mark.parametrize(("path", "text"), blocks("json"))
def test_json_is_json(path, text):
    try:
        json.loads(text)
    except ValueError:  # a log: an object for each line
        assert [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("path", "text"), blocks("yaml"))
def test_yaml_is_yaml(path, text):
    assert yaml.safe_load(text)


@pytest.mark.parametrize(("path", "text"), blocks("ini"))
def test_units_can_be_read_and_start_our_program(path, text):
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text)
    assert Path(shlex.split(unit["Service"]["ExecStart"])[0]).name in PROGRAMS


@pytest.mark.parametrize(("path", "text"), [*blocks("sh"), *blocks("console")])
def test_the_shell_understands_commands(path, text):
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        text = "\n".join(line[2:] for line in lines if line.startswith("$ "))
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


class Program:
    """A piece of Python from a document, as if it stood in a program that has a tunnel."""

    def __init__(self, text: str, names: dict[str, object]) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.code = compile(text, "block", "exec", flags=flags, dont_inherit=True)
        self.printed: list[object] = []
        self.names = names | {"print": lambda *words: self.printed.append(words)}

    async def run(self) -> None:
        """Run it where it belongs: in Trio, in asyncio, or in a thread."""
        if "asyncio" in self.code.co_names:
            await trio.to_thread.run_sync(lambda: asyncio.run(self._call()))
        elif "blocking" in self.code.co_names:
            await trio.to_thread.run_sync(eval, self.code, self.names)
        elif (made := eval(self.code, self.names)) is not None:
            await made

    async def _call(self) -> None:
        await eval(self.code, self.names)


async def until_printed(program: Program, link: tunnel.ClientLink) -> None:
    """Something happens again and again, until a program that waits for it has said so."""
    while not program.printed:
        async with link.publish(to=1):
            await trio.lowlevel.checkpoint()


async def application(scope, receive, send):
    """Starts and stops, as ASGI says it."""
    assert scope["type"] == "lifespan"
    for word in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{word}.complete"})


def write_client(server: tunnel.EmbeddedServer, file: str) -> Path:
    """A client's file; each is another client."""
    client = {
        "server_addr": "127.0.0.1",
        "server_port": server.addresses[0].port,
        "auth_key": KEY,
        "pin": server.pin,
    }
    path = Path(file)
    path.touch(mode=0o600)
    path.write_text(tomlkit.dumps({"client": client}))
    return path


@pytest.mark.parametrize(("path", "text"), blocks("python"))
async def test_python_runs(path, text, tmp_path, monkeypatch):
    config = tunnel.ServerConfig(bind_addr="127.0.0.1", bind_port=0, auth_key=KEY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if name(path) in NOT_RUN:
        Program(text, {})
        return
    async with tunnel.serve(config) as server:
        write_client(server, "client.toml")
        async with tunnel.connect(write_client(server, "link.toml")) as link:
            given = {
                "Path": Path,
                "app": application,
                "asyncio": asyncio,
                "blocking": blocking,
                "config": config,
                "is_night": lambda: False,
                "key": KEY,
                "link": link,
                "server": server,
                "trio": trio,
                "tunnel": tunnel,
            }
            program = Program(text, given)
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    if "async for event" in text:  # it goes on for ever
                        nursery.start_soon(program.run)
                        await until_printed(program, link)
                        nursery.cancel_scope.cancel()
                    else:
                        await program.run()


def test_what_is_not_run_has_python():
    assert {name(path) for path in PAGES} >= NOT_RUN.keys()


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name.endswith(".zh.md")], ids=name
)
def test_a_translation_has_the_same_blocks(path):
    english = path.with_name(path.name.replace(".zh.md", ".md"))
    assert BLOCK.findall(path.read_text("utf-8")) == BLOCK.findall(english.read_text("utf-8"))
