"""Traffic, random faults and reconnects for a long time: is what it takes flat at the end?

::

    python -m tests.reliability.soak --minutes 30

One server process and one client process live through all of it. In each round there is traffic of
three kinds, and something happens to the link, to a process or to the service. Then the traffic
stops, the link is back, and what both processes have is measured: memory, descriptors, tasks. The
verdict is about these quiet moments. A picture (SVG) and the samples (JSON) are written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from tests.e2e.rig import Process, ask, lab, reset, visit
from tests.faults.inspected import prefix, tasks
from tests.faults.lab import FaultLab, descriptors, freeze, thaw
from tests.faults.proxy import Action, Way
from tests.reliability.flatness import Series, growth, is_flat, picture
from tests.rig import make_certificate
from tunnel.limits import KIB, MIB

#: Dead peers are noticed within two seconds, so that a stall is a round and not a pause.
KEEPALIVE = {"keepalive_interval": 1.0, "keepalive_timeout": 1.0}
#: How long the tunnel may take to be back, also on a machine that does other things, in seconds.
BACK = 60
WHAT = {"memory": "MiB", "descriptors": "", "tasks": ""}
#: What each may grow in the second half: a share of it, or so much.
FLAT = {"memory": (0.03, 1.0), "descriptors": (0.0, 1.0), "tasks": (0.0, 1.0)}


class WrongDataError(Exception):
    """Something arrived that was not sent."""


class NotBackError(Exception):
    """The tunnel did not come back after a fault."""


class Soak:
    """What goes on, and what was seen of it."""

    def __init__(self, there: FaultLab, chance: random.Random) -> None:
        self.there = there
        self.chance = chance
        self.samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self.count = {"transfers": 0, "asked": 0, "broken": 0, "faults": 0}

    async def run(self, seconds: float, report: Callable[[str], object]) -> None:
        """Rounds until the time is over."""
        began = trio.current_time()
        await self._measure(began)
        while (now := trio.current_time()) < began + seconds:
            fault = self.chance.choice(FAULTS)
            async with trio.open_nursery() as nursery:
                for traffic in (self._bulk, self._bulk, self._small, self._new, self._new):
                    nursery.start_soon(self._again, traffic)
                await trio.sleep(self.chance.uniform(0.2, 1.0))
                self.count["faults"] += 1
                await fault(self.there, self.chance)
                await trio.sleep(self.chance.uniform(0.2, 1.0))
                nursery.cancel_scope.cancel()
            await self._wait_back()
            await self._measure(began)
            report(f"{(now - began) / 60:5.1f} min  {fault.__name__:12} {self.state()}")

    # --- Traffic -----------------------------------------------------------------------------

    async def _again(self, traffic: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await traffic()
            except* (OSError, trio.BrokenResourceError):
                self.count["broken"] += 1
                await trio.sleep(0.05)

    async def _bulk(self) -> None:
        """Up to 4 MiB there and back; every byte is checked."""
        size = self.chance.randrange(4 * MIB)
        sent, got = hashlib.sha256(), hashlib.sha256()
        async with await visit(self.there.address) as visitor, trio.open_nursery() as nursery:

            async def send() -> None:
                for start in range(0, size, 64 * KIB):
                    block = self.chance.randbytes(min(64 * KIB, size - start))
                    sent.update(block)
                    await visitor.send_all(block)
                await visitor.send_eof()

            nursery.start_soon(send)
            async for data in visitor:
                got.update(data)
        if got.digest() != sent.digest():
            raise WrongDataError(
                f"a transfer of {size} bytes ended cleanly and is not what was sent"
            )
        self.count["transfers"] += 1

    async def _small(self) -> None:
        """Keystrokes over a connection that stays."""
        async with await visit(self.there.address) as visitor:
            while True:
                await self._talk(visitor)
                await trio.sleep(0.005)

    async def _new(self) -> None:
        """A connection for every question; some end in a reset."""
        visitor = await visit(self.there.address)
        try:
            await self._talk(visitor)
            if self.chance.random() < 0.2:
                reset(visitor)
        finally:
            await trio.aclose_forcefully(visitor)

    async def _talk(self, visitor: trio.SocketStream) -> None:
        question = secrets.token_bytes(16)
        await visitor.send_all(question)
        answer = b""
        while len(answer) < len(question):
            data = await visitor.receive_some()
            if not data:
                raise WrongDataError("an end in the middle of an answer")
            answer += data
        if answer != question:
            raise WrongDataError("a question came back as something else")
        self.count["asked"] += 1

    # --- Quiet -------------------------------------------------------------------------------

    async def _wait_back(self) -> None:
        try:
            with trio.fail_after(BACK):
                while not await self._answers():  # noqa: ASYNC110
                    await trio.sleep(0.05)
                # The visitors' connections are gone when both ends have heard of it.
                before = None
                while before != (now := [self._now(p) for p in self._processes()]):
                    before = now
                    await trio.sleep(0.1)
        except trio.TooSlowError:
            lines = [line for process in self._processes().values() for line in process.lines[-8:]]
            said = "\n".join(map(str, lines))
            raise NotBackError(f"{self.there.address} does not answer\n{said}") from None

    async def _answers(self) -> bool:
        try:
            with trio.move_on_after(5):
                return await ask(self.there.address) == b"hello"
        except (OSError, trio.BrokenResourceError):
            pass
        return False

    def _processes(self) -> dict[str, Process]:
        return {"server": self.there.server, "client": self.there.client}

    def _now(self, name: str) -> tuple[int, int]:
        process = self._processes()[name]
        return descriptors(process), tasks(self.there.place.directory / f"{name}.tasks")

    async def _measure(self, began: float) -> None:
        at = trio.current_time() - began
        for name, process in self._processes().items():
            if process.process.returncode is not None:
                raise RuntimeError(f"the {name} has ended: {process.lines[-5:]}")
            open_now, living = self._now(name)
            values = {"memory": process.memory / MIB, "descriptors": open_now, "tasks": living}
            for what, value in values.items():
                self.samples.setdefault((what, name), []).append((at, value))

    # --- Verdict -----------------------------------------------------------------------------

    def state(self) -> str:
        """The last sample and the counts, on a line."""
        last = {key: samples[-1][1] for key, samples in self.samples.items()}
        now = ", ".join(
            f"{what} {last[what, 'server']:g}/{last[what, 'client']:g}"
            if what != "memory"
            else f"{last[what, 'server']:.1f}/{last[what, 'client']:.1f} MiB"
            for what in WHAT
        )
        return f"{now}  {self.count}"

    def series(self, what: str) -> list[Series]:
        """The samples of both processes."""
        return [
            Series(name, WHAT[what], tuple(self.samples[what, name])) for name in self._processes()
        ]

    def not_flat(self) -> list[str]:
        """What grew, in words."""
        return [
            f"{what} of the {each.name}, by {growth(each):.1f} {each.unit}"
            for what, (share, least) in FLAT.items()
            for each in self.series(what)
            if not is_flat(each, share=share, least=least)
        ]


# --- What happens -------------------------------------------------------------------------------


async def cut(there: FaultLab, _chance: random.Random) -> None:
    there.proxy.cut()


async def reset_link(there: FaultLab, _chance: random.Random) -> None:
    there.proxy.reset()


async def stall(there: FaultLab, chance: random.Random) -> None:
    there.proxy.stall(*chance.choice([(Way.UP,), (Way.DOWN,), ()]))
    await trio.sleep(chance.uniform(0.1, 4))
    there.proxy.resume()


async def at_a_byte(there: FaultLab, chance: random.Random) -> None:
    action = chance.choice([Action.CORRUPT, Action.TRUNCATE, Action.CUT, Action.RESET])
    there.proxy.at(action, chance.choice(list(Way)), chance.randrange(MIB))


async def slow(there: FaultLab, chance: random.Random) -> None:
    there.proxy.delay(chance.uniform(0.0, 0.1))
    there.proxy.drip(chance.randrange(1000, 20000), 0.01)
    await trio.sleep(1)
    there.proxy.delay(0)
    there.proxy.drip(0, 0)


async def freeze_one(there: FaultLab, chance: random.Random) -> None:
    victim = chance.choice([there.server, there.client])
    freeze(victim)
    await trio.sleep(chance.uniform(0.1, 3))
    thaw(victim)


async def no_way(there: FaultLab, _chance: random.Random) -> None:
    there.proxy.refuses = True
    there.proxy.reset()
    await trio.sleep(0.5)
    there.proxy.refuses = False


async def nothing(_there: FaultLab, _chance: random.Random) -> None:
    await trio.sleep(0.5)


FAULTS = [cut, reset_link, stall, at_a_byte, slow, freeze_one, no_way, nothing]


# --- The command --------------------------------------------------------------------------------


async def soak(
    seconds: float, directory: Path, chance: random.Random, report: Callable[[str], object]
) -> Soak:
    """Run one; the samples are in what it returns."""
    certificate = make_certificate(directory)
    async with lab(directory, certificate) as place:
        for name in ("server", "client"):
            place.prefixes[name] = prefix(directory / f"{name}.tasks")
        there = FaultLab(place)
        listeners = await place.nursery.start(_serve)
        port = listeners[0].socket.getsockname()[1]
        client = KEEPALIVE | {"connect_timeout": 5.0}
        await there.start({"local_port": port}, server=KEEPALIVE, client=client)
        running = Soak(there, chance)
        await running.run(seconds, report)
        return running


async def _serve(*, task_status):
    await trio.serve_tcp(_echo, 0, host="127.0.0.1", task_status=task_status)


async def _echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()
    except trio.BrokenResourceError:
        pass


def main() -> int:
    """Run the command; 1 if something grew."""
    parser = argparse.ArgumentParser(description="Is what a tunnel takes flat after a long time?")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("build/soak"), help="a directory")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    arguments = parser.parse_args()
    print(f"--seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as directory:
        running = trio.run(
            soak, 60 * arguments.minutes, Path(directory), random.Random(arguments.seed), print
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    samples = {f"{what} of the {name}": list(s) for (what, name), s in running.samples.items()}
    (arguments.out / "soak.json").write_text(json.dumps(samples | {"counts": running.count}))
    title = f"{arguments.minutes:g} minutes of traffic and {running.count['faults']} faults"
    panels = [(f"{what} {unit}".strip(), running.series(what)) for what, unit in WHAT.items()]
    (arguments.out / "soak.svg").write_text(picture(title, panels))
    for what in running.not_flat():
        print(f"not flat: {what}", file=sys.stderr)
    print(f"written: {arguments.out}/soak.svg, {arguments.out}/soak.json")
    return 1 if running.not_flat() else 0


if __name__ == "__main__":
    sys.exit(main())
