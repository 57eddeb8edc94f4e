"""Tunnels compared, on the same work in one run. `python -m tests.benchmarks.compare --help`

Writes results.json (everything), results.md (tables) and results.svg (ratios with their spread).
docs/benchmarks.md says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import inspect
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import attrs

from tests.benchmarks import workloads
from tests.benchmarks.digest import Corrupt
from tests.benchmarks.peers.ours import COMPILED, Ours
from tests.benchmarks.peers.peer import Peer, output_of
from tests.benchmarks.progress import Progress
from tests.benchmarks.report import BEFORE, DIRECT, OURS, Results, markdown, write
from tests.benchmarks.running import Failed, Tunnel, direct, lay_out, tunnel
from tests.benchmarks.services import Services, services
from tests.benchmarks.workloads import Case, Work

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "benchmarks"
#: Exit codes: something was not as promised or too noisy to tell; something arrived corrupted.
DOUBTFUL, CORRUPT = 1, 2


def all_peers() -> dict[str, Peer]:
    """Every peer, by the name of its module; ours comes first."""
    found: dict[str, Peer] = {}
    for path in sorted((Path(__file__).parent / "peers").glob("*.py")):
        module = importlib.import_module(f"tests.benchmarks.peers.{path.stem}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and issubclass(kind, Peer) and kind is not Peer:
                found[path.stem] = kind()
    return dict(sorted(found.items(), key=lambda item: item[1].name != OURS))


def choose_peers(wanted: str | None, *, compiled: bool = False) -> list[Peer]:
    """Those named, by module or by the beginning of their name; ours is always among them.

    With `compiled` that is the copy with its engine compiled, and this tree is measured beside it.
    """
    peers = all_peers()
    ours: list[Peer] = [Ours(COMPILED), Ours(name="interpreted")] if compiled else [peers["ours"]]
    if wanted is None:
        return ours + [peer for stem, peer in peers.items() if stem != "ours"]
    chosen = ours
    for word in filter(None, wanted.lower().split(",")):
        named = [p for stem, p in peers.items() if word == stem or p.name.lower().startswith(word)]
        if not named:
            raise SystemExit(f"no peer is called {word!r}; there are: {', '.join(peers)}")
        chosen += [peer for peer in named if peer not in chosen]
    return chosen


def choose_work(wanted: str | None) -> list[Work]:
    """Those whose name is given or begins so ("bulk" is all four)."""
    if wanted is None:
        return list(workloads.ALL)
    chosen: list[Work] = []
    for word in filter(None, wanted.split(",")):
        named = [work for work in workloads.ALL if work.name.startswith(word)]
        if not named:
            names = ", ".join(work.name for work in workloads.ALL)
            raise SystemExit(f"no work is called {word!r}; there are: {names}")
        chosen += [work for work in named if work not in chosen]
    return chosen


@attrs.define(eq=False)
class Comparison:
    """One run."""

    peers: list[Peer]
    work: list[Work]
    seconds: int
    quick: bool
    order: random.Random
    progress: Progress
    figures: dict[str, dict[str, float]] = attrs.field(factory=dict)
    failures: list[dict[str, Any]] = attrs.field(factory=list)

    def steps(self) -> int:
        """How many measurements a round has."""
        return sum(work.applies(peer) for work in self.work for peer in [None, *self.peers])

    def round(self, number: int) -> dict[str, Any]:
        """Measure everything once: each work through every tunnel, in an order that changes."""
        self.figures, self.failures = {}, []
        orders = []
        others = busy(0.5)
        with ExitStack() as stack:
            local = stack.enter_context(services())
            standing = self._stand(stack, local, number)
            for work in self.work:
                peers = [peer for peer in [None, *self.peers] if work.applies(peer)]
                self.order.shuffle(peers)
                orders.append([work.name, *map(_name, peers)])
                for peer in peers:
                    self.progress.step(f"round {number}, {work.name}: {_name(peer)}")
                    here, behind = standing.get(_name(peer), (None, local))
                    if here is not None or not work.standing:
                        case = Case(peer, here, behind, self.seconds, self.quick)
                        self._measure(work, case, number)
        return {
            "order": orders,
            "busy": others,
            "figures": self.figures,
            "failures": self.failures,
        }

    def _stand(
        self, stack: ExitStack, local: Services, number: int
    ) -> dict[str, tuple[Tunnel, Services]]:
        """A tunnel of each kind, until the round ends.

        Each has services of its own: a tunnel that hangs must not keep iperf3 busy for the others.
        """
        found = {DIRECT: (direct(local.all()), local)}
        for peer in self.peers if any(work.standing for work in self.work) else ():
            self.progress.say(f"round {number}, starting {peer.name}")
            try:
                behind = stack.enter_context(services())
                here = stack.enter_context(tunnel(peer, behind.all()))
                found[peer.name] = here, behind
            except (Failed, OSError) as error:
                self._failed(peer, "start", number, error)
        return found

    def _measure(self, work: Work, case: Case, number: int) -> None:
        try:
            found = work.measure(case)
            if case.standing is not None:
                case.standing.check()
            self.figures.setdefault(_name(case.peer), {}).update(found)
        except (Corrupt, Failed, OSError) as error:
            self._failed(case.peer, work.name, number, error)

    def _failed(self, peer: Peer | None, work: str, number: int, error: Exception) -> None:
        corrupt = isinstance(error, Corrupt)
        text = str(error) or type(error).__name__
        self.failures.append(
            {"peer": _name(peer), "work": work, "round": number, "text": text, "corrupt": corrupt}
        )
        self.progress.say(f"FAILED: {work} of {_name(peer)}: {text}", keep=True)


def _name(peer: Peer | None) -> str:
    return DIRECT if peer is None else peer.name


def usable(peers: Sequence[Peer]) -> tuple[list[Peer], list[dict[str, Any]]]:
    """Those that can run here, and what is written down about each."""
    found, notes = [], []
    for peer in peers:
        note: dict[str, Any] = {"name": peer.name, "version": "", "commands": []}
        note["missing"] = peer.missing()
        if note["missing"] is None:
            try:
                note |= {"version": peer.version(), "commands": _commands(peer)}
                found.append(peer)
            except (OSError, subprocess.SubprocessError) as error:
                note["missing"] = f"does not work here: {error}"
        notes.append(note)
    return found, notes


def _commands(peer: Peer) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        place = lay_out(peer, [], Path(directory))
        peer.prepare(place)
        commands = [*peer.servers(place), *peer.clients(place)]
        lines = (" ".join(command.argv) for command in commands)
        return [line.replace(directory, "DIR").replace(f"{ROOT}/", "") for line in lines]


def machine() -> dict[str, Any]:
    """What the figures come from."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "congestion": congestion.read_text().strip(),
        "python": platform.python_version(),
    }


def busy(seconds: float) -> float:
    """The share of the cores that is used now, by others, since nothing of ours runs yet."""
    before = _ticks()
    time.sleep(seconds)
    idle, total = (now - then for now, then in zip(_ticks(), before, strict=True))
    return 1 - idle / max(total, 1)


def _ticks() -> tuple[int, int]:
    """Idle ones and all, since the machine began; waiting for a disk is idle."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    ticks = list(map(int, fields))
    return ticks[3] + ticks[4], sum(ticks)


def tools() -> dict[str, str]:
    """Versions of the load generators and services."""
    commands = {
        "iperf3": ("iperf3", "--version"),
        "wrk": ("wrk", "-v"),
        "nginx": ("nginx", "-v"),
    }
    found = {}
    for name, command in commands.items():
        with contextlib.suppress(OSError):
            found[name] = output_of(*command).partition("\n")[0]
    return found


def raise_limit() -> None:
    """Thousands of visitors need descriptors; what is started here inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def compare(options: argparse.Namespace) -> Iterator[Results]:
    """Run; gives the results so far after every round."""
    wanted = choose_peers(options.peers, compiled=options.compiled)
    if options.before:
        wanted.insert(1, Ours(options.before.absolute(), BEFORE))
    peers, notes = usable(wanted)
    chosen = choose_work(options.work)
    absent = {work.name: work.missing() for work in chosen}
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    raw: dict[str, Any] = {
        "begun": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": options.seconds,
        "quick": options.quick,
        "seed": seed,
        "machine": machine(),
        "tools": tools(),
        "peers": notes,
        "works": [{"name": name, "missing": reason} for name, reason in absent.items()],
        "rows": [attrs.asdict(row) for work in chosen for row in work.rows],
        "rounds": [],
    }
    work = [work for work in chosen if absent[work.name] is None]
    with Progress() as progress:
        run = Comparison(peers, work, options.seconds, options.quick, random.Random(seed), progress)
        progress.total = options.rounds * run.steps()
        for number in range(1, options.rounds + 1):
            raw["rounds"].append(run.round(number))
            yield Results(raw)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.partition(".")[0])
    parser.add_argument("--rounds", type=int, default=None, help="default 5; 2 with --quick")
    parser.add_argument(
        "--seconds", type=int, default=None, help="of load; default 3; 1 with --quick"
    )
    parser.add_argument("--peers", help="such as go,ssh; default: all that are installed")
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="measure the copy with the compiled engine (make bench), and this one beside it",
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="DIR",
        help="another checkout of this tunnel, in turns with this one; "
        f"exit {DOUBTFUL} if all quartiles of a row say that it was better",
    )
    parser.add_argument("--work", help="such as bulk,keep; default: all")
    parser.add_argument("--seed", type=int, help="of the order, to have it again")
    parser.add_argument("--out", type=Path, default=OUT, help="directory; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a look; too little to judge by")
    parser.add_argument(
        "--strict", action="store_true", help=f"exit {DOUBTFUL} unless every promise was seen held"
    )
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 3)
    return options


def main() -> None:
    """Compare and write; see `--help`."""
    options = arguments()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    raise_limit()
    results = None
    try:
        for results in compare(options):
            write(results, options.out)
    except KeyboardInterrupt:
        sys.exit("interrupted; the rounds that were complete are in " + str(options.out))
    assert results is not None
    print(markdown(results))
    print(f"Written to {options.out}: results.json, results.md, results.svg")
    if results.corrupt():
        sys.exit(CORRUPT)
    if options.before and not as_fast_as_before(results):
        sys.exit(DOUBTFUL)
    if options.strict and results.doubtful():
        sys.exit(DOUBTFUL)


def as_fast_as_before(results: Results) -> bool:
    """Print whether a row is worse than in the tree before; False also if that cannot be told."""
    ratios, unknown = results.against_before()
    if unknown:
        print(f"not compared with the tree before: {', '.join(unknown)}")
        return False
    worse = [ratio.row.title for ratio in ratios if ratio.worse]
    print(f"slower than before: {len(worse)}", *worse, sep="\n  ")
    return not worse


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)  # everything that was started is ended on the way out


if __name__ == "__main__":
    main()
