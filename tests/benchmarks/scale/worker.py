"""Helper processes: told what to do by a line of JSON, they answer with one."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tunnel.ops.descriptors import raise_descriptor_limit

#: Seconds for the longest order on a slow machine.
PATIENCE = 120.0

Order = dict[str, Any]


class Worker:
    """A Python program of this directory that answers orders."""

    def __init__(self, module: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.scale.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | (env or {}),
        )
        self.pid = self._process.pid

    def tell(self, **order: Any) -> None:
        """Give an order; `answer` waits until it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Order:
        """What it says to the last order."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"no answer from {self._process.args}")
        answer: Order = json.loads(line)
        return answer

    def ask(self, **order: Any) -> Order:
        """Give an order and wait until it is done."""
        self.tell(**order)
        return self.answer()

    def close(self) -> None:
        """End it and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def ask_all(workers: Iterable[Worker], orders: Iterable[Order]) -> list[Order]:
    """An order for each, all at once; their answers."""
    told = list(zip(workers, orders, strict=True))
    for worker, order in told:
        worker.tell(**order)
    return [worker.answer() for worker, _ in told]


def obey(obedient: Callable[[Order], Order]) -> None:
    """In the helper process: do as told until nobody tells any more."""
    raise_descriptor_limit()
    for line in sys.stdin:
        say(obedient(json.loads(line)))


def say(answer: Order) -> None:
    """Answer the last order."""
    print(json.dumps(answer), flush=True)


def shares(total: int, parts: int) -> list[int]:
    """`total` in so many parts that are as equal as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]
