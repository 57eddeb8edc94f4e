from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.benchmarks import running
from tests.benchmarks.peers.peer import Command, Peer, Place, find_program
from tests.benchmarks.processes import free_ports
from tests.benchmarks.running import (
    Failed,
    Program,
    Service,
    Use,
    direct,
    lay_out,
    own_address,
    tunnel,
    wait_for,
)

#: A program that listens, and a child that works and holds 20 MB, both until they are killed.
FAMILY = """
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
ours, theirs = socket.socketpair()
if os.fork() == 0:
    memory = b"x" * 20_000_000
    while sum(os.times()[:2]) < 0.1:
        pass
    theirs.send(b".")
    signal.pause()
ours.recv(1)
while True:
    with listener.accept()[0] as sock:
        sock.send(b".")
"""
#: Forwards nothing, but answers: one program listens on the server's port, one publishes.
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    while True:
        with listener.accept()[0] as sock:
            sock.send(b".")
"""


class Fake(Peer):
    """A tunnel that carries nothing and answers everything."""

    name = "fake"

    def version(self):
        return "0"

    def prepare(self, place):
        (place.directory / "secret").write_text("s")

    def servers(self, place):
        return [self._listen(place, place.server_port)]

    def clients(self, place):
        return [self._listen(place, published) for published, _ in place.published]

    def _listen(self, place, port):
        return Command((sys.executable, "-c", LISTEN, place.server_host, str(port)))


class Broken(Fake):
    """Its client ends at once."""

    def clients(self, place):  # noqa: ARG002
        return [Command((sys.executable, "-c", "import sys; sys.exit('no such key')"))]


class Silent(Fake):
    """Its client publishes nothing."""

    def clients(self, place):  # noqa: ARG002
        return [Command((sys.executable, "-c", "import signal; signal.pause()"))]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def family(tmp_path):
    (port,) = free_ports(1)
    program = Program(Command((sys.executable, "-c", FAMILY, str(port))), tmp_path / "log")
    try:
        here = direct([Service(port, b"hello")])
        here.servers.append(program)
        wait_for(here, {port: b"hello"})
        yield program
    finally:
        program.close()


def test_children_belong_to_a_program(family):
    assert len(family.pids()) == 2
    assert family.pids()[0] == family.pid
    assert family.cpu() >= 0.1
    assert family.memory() > 20_000_000


def test_children_end_with_a_program(family):
    pids = family.pids()
    assert all(map(alive, pids))
    family.close()
    assert not any(map(alive, pids))


def test_cpu_of_a_child_that_has_ended_counts(tmp_path):
    work = (
        "import os, time\nif os.fork() == 0:\n while sum(os.times()[:2]) < .2: pass\n os._exit(0)"
    )
    wait = "os.wait(); print('done', flush=True); time.sleep(1000)"
    program = Program(Command((sys.executable, "-c", f"{work}\n{wait}")), tmp_path / "log")
    try:
        while "done" not in program.wrote():
            program.check()
        assert len(program.pids()) == 1
        assert program.cpu() >= 0.2
    finally:
        program.close()


def test_a_program_that_ended_shows_what_it_wrote(tmp_path):
    command = Command((sys.executable, "-c", "import os; print(os.environ['WORD']); exit(3)"),
                      {"WORD": "no such key"})  # fmt: skip
    program = Program(command, tmp_path / "log")
    program._process.wait()
    with pytest.raises(Failed, match="ended with status 3:\nno such key"):
        program.check()
    program.close()


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(Failed, match="no-such-program is not on PATH"):
        Program(Command(("no-such-program",)), tmp_path / "log")


def test_prefix_comes_first(tmp_path):
    env = find_program("env")
    program = Program(Command(("true",)), tmp_path / "log", (env, "WORD=1"))
    program._process.wait()
    assert program.argv == (env, "WORD=1", find_program("true"))
    program.close()


def test_use():
    assert Use(3, 5) - Use(1, 2) == Use(2, 3)


def test_every_tunnel_has_an_address_of_its_own():
    found = [own_address() for _ in range(100)]
    assert len(set(found)) == 100
    for address in found:
        first, second, third, last = map(int, address.split("."))
        assert first == 127 and 32 <= second < 64 and 0 <= third < 256 and 1 <= last < 255


def test_lay_out(tmp_path):
    place = lay_out(Fake(), [Service(80, b""), Service(81, b"")], tmp_path)
    assert [local for _, local in place.published] == [80, 81]
    ports = {place.server_port, *(published for published, _ in place.published)}
    assert len(ports) == 3


def test_lay_out_with_a_port_that_cannot_be_chosen(tmp_path):
    class Fixed(Fake):
        server_port = 7835

    assert lay_out(Fixed(), [], tmp_path).server_port == 7835


def test_dialled_port(tmp_path):
    assert Place(tmp_path, "127.0.0.1", 1, ()).dialled_port == 1
    assert Place(tmp_path, "127.0.0.1", 1, (), through=2).dialled_port == 2


def test_tunnel_ends_with_its_block():
    service = Service(9, b"hello")
    with tunnel(Fake(), [service]) as here:
        programs = [*here.servers, *here.clients]
        here.check()
        with socket.create_connection((here.host, here.port(service)), 10) as visitor:
            assert visitor.recv(1)
        assert (here.place.directory / "secret").exists()
        assert here.memory().server > 0
    assert not any(alive(program.pid) for program in programs)
    assert not here.place.directory.exists()


def test_tunnel_that_cannot_start():
    before = own_children()
    with pytest.raises(Failed, match="no such key"), tunnel(Broken(), [Service(9, b"hello")]):
        pass
    assert own_children() == before


def test_tunnel_that_does_not_carry(monkeypatch):
    monkeypatch.setattr(running, "PATIENCE", 0.5)
    before = own_children()
    with pytest.raises(Failed, match=r"did not answer in .*\n--- server-0.log"):
        with tunnel(Silent(), [Service(9, b"hello")]):
            pass
    assert own_children() == before


def own_children():
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
