"""A unit, started by a real systemd: what the service can do, and what it cannot.

That systemd is process 1 of a namespace of its own, and sees no other units than those of the test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tunnel.ops.units import Service, unit_text

SYSTEMD = Path("/lib/systemd/systemd")
PYTHON = Path("/usr/bin/python3")
missing = [
    *(str(path) for path in (SYSTEMD, PYTHON) if not path.exists()),
    *(name for name in ("unshare", "mount") if shutil.which(name) is None),
    *(["root"] if sys.platform != "linux" or os.geteuid() != 0 else []),
]


def namespaces():
    """True if this user may make those that it takes (a container often may not)."""
    words = [
        "unshare",
        "-Cpfmun",
        "--mount-proc",
        "mount",
        "-t",
        "cgroup2",
        "none",
        "/sys/fs/cgroup",
    ]
    return not subprocess.run(words, capture_output=True).returncode


if not missing and not namespaces():
    missing.append("namespaces")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]

BOOT = """\
set -e
mount --make-rprivate /
mount --make-rshared /
mount -t tmpfs none /run
mkdir -p /run/systemd /run/lock
mount -t tmpfs none /var/lib
mount -t tmpfs none /var/log
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -o bind,ro /proc/sys /proc/sys
export container=lxc SYSTEMD_UNIT_PATH="{units}" SYSTEMD_GENERATOR_PATH="{units}/none"
exec {systemd} --system --unit=test.target --log-target=console --show-status=no
"""
#: What runs as the service: it tries this and that, writes down what came of it, and is ready.
PROBE = """\
import json, os, socket, sys
def attempt(function, *arguments):
    try:
        return function(*arguments)
    except OSError as error:
        return type(error).__name__
def read(path):
    with open(path) as file:
        return file.read()
def write(path):
    with open(path, "w"):
        return "written"
def listen(port):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        return "bound"
found = {
    "user": os.geteuid(),
    "files": [attempt(read, path) for path in sys.argv[2:]],
    "shadow": attempt(read, "/etc/shadow"),
    "etc": attempt(write, "/etc/written-by-a-test"),
    "homes": [attempt(os.listdir, home) for home in ("/root", "/home")],
    "low": attempt(listen, 80),
    "high": attempt(listen, 8080),
}
with open(os.environ["STATE_DIRECTORY"] + "/found", "w") as file:
    json.dump(found, file)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
import time
time.sleep(60)
"""
DRIVER = """\
[Unit]
DefaultDependencies=no
After=probe.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /var/lib/private/probe/found > "{answer}" || echo null > "{answer}"'
"""


@pytest.fixture
def place(tmp_path):
    """A directory that everybody may enter."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o001:
            break
        directory.chmod(0o711)
    return tmp_path


@pytest.fixture
def closed():
    """A directory that nobody else may enter, where the service has no other of its own."""
    with tempfile.TemporaryDirectory(dir="/srv") as directory:  # (mode 0700)
        yield Path(directory)


def started(place, service):
    """What the probe found out when systemd had started it; None if it could not."""
    units = place / "units"
    units.mkdir()
    for name in ("sysinit", "basic", "shutdown", "network-online"):
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    answer = place / "answer"
    os.mkfifo(answer)
    (units / "test.target").write_text("[Unit]\nWants=probe.service driver.service\n")
    (units / "driver.service").write_text(DRIVER.format(answer=answer))
    (units / "probe.service").write_text(unit_text(service))
    boot = BOOT.format(units=units, systemd=SYSTEMD)
    words = ["unshare", "-Cpfmun", "--mount-proc", "--kill-child", "sh", "-c", boot]
    with (place / "log").open("wb") as log:
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
            try:
                return json.loads(answer.read_text())
            finally:
                process.kill()


@pytest.mark.parametrize("low_ports", [True, False])
def test_what_a_service_can_do(place, closed, low_ports):
    found = found_in(place, closed, low_ports=low_ports)
    assert found == EXPECTED | {"low": "bound" if low_ports else "PermissionError"}


def test_in_places_with_spaces(place):
    place /= "a place ä"
    place.mkdir()
    with tempfile.TemporaryDirectory(dir="/srv", prefix="a closed one ö ") as closed:
        found = found_in(place, Path(closed), low_ports=False)
    assert found == EXPECTED | {"low": "PermissionError"}


EXPECTED = {
    "files": ["server.toml", "its key.pem"],
    "shadow": "PermissionError",
    "etc": "OSError",
    "homes": [[], []],
    "high": "bound",
}


def found_in(place, closed, *, low_ports):
    """What a service finds whose files are in these directories."""
    files = [place / "server.toml", closed / "its key.pem"]
    for file in files:
        file.write_text(file.name)
        file.chmod(0o600)
    probe = place / "probe.py"
    probe.write_text(PROBE)
    probe.chmod(0o644)
    service = Service(
        name="probe",
        description="a probe",
        command=(str(PYTHON), "-I", str(probe), "-c", *map(str, files)),
        config=files[0],
        files=(files[1], probe),
        closed=(closed,),
        low_ports=low_ports,
    )
    found = started(place, service)
    assert found is not None, (place / "log").read_text()
    assert found.pop("user") > 60_000
    return found
