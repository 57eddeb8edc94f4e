"""`ssh -R`: OpenSSH's own server and client, with the ciphers that they agree on by default."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.peers.peer import Command, Peer, Place, find_program, output_of

#: Where sshd wants to put nobody; the distribution makes it when the service starts.
EMPTY = Path("/run/sshd")

SERVER = """\
ListenAddress {host}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
StrictModes no
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowTcpForwarding remote
GatewayPorts clientspecified
"""
CLIENT = """\
Host tunnel
    HostName {host}
    Port {port}
    HostKeyAlias tunnel
    IdentityFile {directory}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known_hosts
    BatchMode yes
    ExitOnForwardFailure yes
"""


class OpenSSH(Peer):
    """One `ssh -N -R ...`, with a key made for it."""

    name = "ssh -R"
    programs = ("ssh", "sshd", "ssh-keygen")
    install = "apt install openssh-client openssh-server"
    reconnects = False

    def missing(self) -> str | None:
        absent = super().missing()
        if absent is None and os.getuid() == 0 and not EMPTY.is_dir():
            return f"sshd needs the directory {EMPTY} (mkdir {EMPTY})"
        return absent

    def version(self) -> str:
        return output_of("ssh", "-V").partition(",")[0].partition(" ")[0]

    def prepare(self, place: Place) -> None:
        directory = place.directory
        for name in ("host_key", "user_key"):
            command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name))
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        host_key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"tunnel {host_key}")
        host = place.server_host
        server = SERVER.format(host=host, port=place.server_port, directory=directory)
        (directory / "sshd_config").write_text(server)
        client = CLIENT.format(host=host, port=place.dialled_port, directory=directory)
        (directory / "ssh_config").write_text(client)

    def servers(self, place: Place) -> Sequence[Command]:
        sshd = find_program("sshd")
        assert sshd is not None  # it insists on being called by its absolute path
        return [Command((sshd, "-D", "-e", "-f", str(place.directory / "sshd_config")))]

    def clients(self, place: Place) -> Sequence[Command]:
        argv = ["ssh", "-N", "-F", str(place.directory / "ssh_config"), "-l", getpass.getuser()]
        for published, local in place.published:
            argv += ["-R", f"{place.server_host}:{published}:127.0.0.1:{local}"]
        return [Command((*argv, "tunnel"))]
