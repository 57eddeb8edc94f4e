"""A live tunnel that is looked at with a browser."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.e2e.rig import Lab, Process, lab, service, visit
from tunnel.model import Address

playwright = pytest.importorskip("playwright.sync_api", reason="pip install --group page")
expect = playwright.expect
expect.set_options(timeout=20_000)

#: The browser is the system's own: nothing is downloaded to run the tests.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium (Debian: apt install chromium)", allow_module_level=True)

#: A name that the protocol allows.
NAUGHTY = "<script>alert(1)</script>"

#: What Chromium itself writes to its console when a request fails.
FAILED_REQUEST = "Failed to load resource"


@attrs.frozen
class Place:
    """A server and a client with one proxy, and where their pages are."""

    lab: Lab
    server: Process
    client: Process
    address: Address
    server_url: str
    client_url: str


@asynccontextmanager
async def tunnel(directory: Path, certificate: Path, *, proxy: str = "web", **server_keys):
    """A tunnel with statistics on both sides, whose local service is an echo."""
    async with lab(directory, certificate) as place, service() as port:
        server = await place.start_server(stats_port=0, **server_keys)
        client, [address] = await place.publish({"local_port": port, "name": proxy}, stats_port=0)
        urls = [await served(process) for process in (server, client)]
        yield Place(place, server, client, address, *urls)


async def served(process: Process) -> str:
    """Where a program's page is, by its log."""
    for line in process.lines:
        if line["event"] == "Statistics served":
            return line["url"]
    return (await process.wait_for("Statistics served"))["url"]


@asynccontextmanager
async def traffic(address: Address):
    """A visitor who talks all the time, and one who does not read what he asked for."""
    async with trio.open_nursery() as nursery:
        await nursery.start(talk, address)
        await nursery.start(ignore, address)
        yield
        nursery.cancel_scope.cancel()


async def talk(address: Address, *, task_status) -> None:
    async with await visit(address) as visitor:
        task_status.started()
        while True:
            await visitor.send_all(bytes(65_536))
            left = 65_536
            while left:
                left -= len(await visitor.receive_some(left))
            await trio.sleep(0.02)  # this is a load, not a test of how much there can be


async def ignore(address: Address, *, task_status) -> None:
    async with await visit(address) as visitor:
        task_status.started()
        while True:
            await visitor.send_all(bytes(65_536))


@contextmanager
def browser(**settings):
    """A page of a browser of its own; fails afterwards if the page complained of anything.

    `may_fail=True` lets requests fail, as they do when the program is gone; `may_complain=True`
    lets the page say anything.
    """
    may_fail, may_complain = settings.pop("may_fail", False), settings.pop("may_complain", False)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM)
        page = chromium.new_context(**{"locale": "en-GB"} | settings).new_page()
        complaints = watch(page)
        yield page
        chromium.close()
    if may_fail:
        complaints = [text for text in complaints if not text.startswith(FAILED_REQUEST)]
    assert may_complain or not complaints


def watch(page) -> list[str]:
    """What the page writes to the console, throws, and asks of anybody."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    return complaints


async def look(check, url: str, **settings) -> None:
    """Run `check(page)` on a page that shows `url`, in a thread, so that the tunnel goes on."""

    def run() -> None:
        with browser(**settings) as page:
            page.goto(url)
            check(page)

    await trio.to_thread.run_sync(run)


def cells(page, table: str, column: str):
    """The cells of a column, named as a person reads its head in English."""
    expect(page.locator(f"#{table} thead th").first).to_be_visible()  # the program has answered
    heads = page.locator(f"#{table} thead th").all_inner_texts()
    [number] = [i for i, head in enumerate(heads, 1) if head.rstrip(" ▲▼") == column]
    return page.locator(f"#{table} tbody tr > :nth-child({number})")
