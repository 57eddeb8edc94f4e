"""Make the pictures of the page that the documentation shows: `python -m tests.page.pictures`."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import trio

from tests.e2e.rig import lab, service, visit
from tests.page.rig import browser, expect, ignore, served
from tests.rig import make_certificate

IMAGES = Path(__file__).parents[2] / "docs/images"
#: For the charts to have a shape, in seconds.
WHILE = 75
PICTURES = {
    "page-light.png": {"color_scheme": "light", "locale": "en-GB"},
    "page-dark.png": {"color_scheme": "dark", "locale": "zh-CN"},
}
BIGGEST = 150_000
#: How much more the local service says than it is told.
TIMES = 4


async def main() -> None:
    """Run two clients with visitors, look at the server for a while, and keep what is seen."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        async with lab(home, make_certificate(home)) as place, service(answer) as port:
            server = await place.start_server(stats_port=0)
            web, ssh, camera = (
                {"local_port": port, "name": name} for name in ("web", "ssh", "camera")
            )
            _, office = await place.publish(web, ssh, name="office")
            _, workshop = await place.publish(camera, name="workshop")
            async with trio.open_nursery() as nursery:
                for number, address in enumerate([office[0], *office]):
                    nursery.start_soon(ebb_and_flow, address, number)
                await nursery.start(ignore, *workshop)
                await trio.to_thread.run_sync(take, await served(server))
                nursery.cancel_scope.cancel()


async def answer(stream: trio.SocketStream) -> None:
    """A local service."""
    async for data in stream:
        await stream.send_all(data * TIMES)


async def ebb_and_flow(address, number: int) -> None:
    """A visitor who wants more at one time than at another."""
    async with await visit(address) as visitor:
        for turn in itertools.count(number * 70):
            size = 20_000 + 400 * abs(turn % 300 - 150)
            await visitor.send_all(bytes(size))
            left = size * TIMES
            while left:
                left -= len(await visitor.receive_some(left))
            await trio.sleep(0.1)


def take(url: str) -> None:
    """Take the pictures; the pages have to look for a while first."""
    with browser() as first:
        pages = [
            first.context.browser.new_page(viewport={"width": 1100, "height": 740}, **settings)
            for settings in PICTURES.values()
        ]
        for page in pages:
            page.goto(url)
            expect(page.locator("#connections tbody tr").first).to_be_visible()
        first.wait_for_timeout(WHILE * 1000)
        for page, name in zip(pages, PICTURES, strict=True):
            page.screenshot(path=IMAGES / name)
    for name in PICTURES:
        assert (IMAGES / name).stat().st_size < BIGGEST, name


if __name__ == "__main__":
    trio.run(main)
