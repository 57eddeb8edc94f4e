"""Making a service of a server or a client, with systemd, and taking it away again."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs

from tunnel import store
from tunnel.errors import TunnelError
from tunnel.ops.units import Service, edited, name_fault, unit_text

#: sd_booted(3): it is there if systemd is what runs this machine.
_BOOTED = Path("/run/systemd/system")
#: Where an administrator's units are, and those of packages.
_SYSTEM = Path("/etc/systemd/system")
_SHIPPED = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))


@attrs.frozen(kw_only=True)
class Manager:
    """The systemd that a unit is for.

    Args:
      directory: where units are written.
      own: it is a user's, not the system's.
      shipped: other directories with units, which one of ours would hide.
      systemctl: the program that talks to it.
    """

    directory: Path
    own: bool = False
    shipped: tuple[Path, ...] = ()
    systemctl: str = "systemctl"

    def path(self, name: str) -> Path:
        """Where the unit of that name is, or would be."""
        return self.directory / f"{name}.service"

    def line(self, *words: str) -> list[str]:
        """The command that tells it something."""
        return [self.systemctl, *(["--user"] if self.own else []), *words]

    def tell(self, *words: str) -> None:
        """Tell it something.

        Raises:
          TunnelError: it says no; with what it said.
        """
        line = self.line(*words)
        # No shell, and the words are ours: the name of a unit is checked.
        done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            said = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
            raise TunnelError(f"`systemctl {' '.join(line[1:])}` failed: {said}")


def manager(*, own: bool, environ: Mapping[str, str]) -> Manager:
    """The manager of this system, or of this user.

    Raises:
      TunnelError: there is none, or it takes no orders of this user.
    """
    systemctl = shutil.which("systemctl")
    if systemctl is None or not _BOOTED.is_dir():
        raise TunnelError(
            "systemd does not run this machine, so there is nothing to register with; look at the "
            "unit with --print, or see docs/containers.md for another way"
        )
    if own:
        base = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return Manager(directory=base / "systemd" / "user", own=True, systemctl=systemctl)
    if os.geteuid() != 0:
        raise TunnelError(
            "only root can change the services of the system: use sudo, or --user for a service of "
            "your own, or --print to look at the unit"
        )
    return Manager(directory=_SYSTEM, shipped=_SHIPPED, systemctl=systemctl)


def install(service: Service, where: Manager, *, start: bool, force: bool) -> str:
    """Write the unit and have it started, now and at each boot; returns what was done.

    Raises:
      TunnelError: a unit is in the way, or systemd says no.
    """
    path, text = where.path(service.name), unit_text(service)
    if not force:
        _refuse_surprise(path, text, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomic(store.File(path, text.encode(), 0o644))
    where.tell("daemon-reload")
    if not start:
        return f"Wrote {path}. Start it with: {_said(where, 'enable', '--now', service.name)}"
    where.tell("enable", service.name)
    try:
        where.tell("restart", service.name)
    except TunnelError as error:
        log = f"journalctl {'--user ' if where.own else ''}-u {service.name} -n 30"
        raise TunnelError(f"{path} is written and enabled, but {error} See: {log}") from error
    return f"Wrote {path} and started it. See: {_said(where, 'status', service.name)}"


def remove(name: str, where: Manager, *, force: bool) -> str:
    """Stop a service and take its unit away; returns what was done.

    Raises:
      TunnelError: there is none, it is not ours, or systemd says no.
    """
    if problem := name_fault(name):
        raise TunnelError(f"the name {name!r} {problem}")
    path = where.path(name)
    present = _read(path)
    if present is None:
        raise TunnelError(f"there is no unit {path}; its name is what `register` said, see -n")
    if edited(present) and not force:
        raise TunnelError(
            f"{path} was not written by `tls-tunnel register`, or was edited since; "
            "remove it yourself, or use --force"
        )
    where.tell("disable", "--now", name)
    path.unlink()
    where.tell("daemon-reload")
    return f"Stopped {name} and removed {path}; its state is kept"


def _refuse_surprise(path: Path, text: str, where: Manager) -> None:
    for directory in where.shipped:
        if (directory / path.name).exists():
            raise TunnelError(
                f"{directory / path.name} is a unit of another package, which {path} would hide; "
                "choose another name with -n, or use --force"
            )
    present = _read(path)
    if present is None or not edited(present):
        return
    lines = present.splitlines(), text.splitlines()
    differences = difflib.unified_diff(*lines, "there now", "would be written", n=0, lineterm="")
    raise TunnelError(
        "\n".join(
            (
                f"{path} was not written by `tls-tunnel register`, or was edited since; "
                "nothing was changed. Keep your changes in a drop-in (systemctl edit), choose "
                "another name with -n, or use --force. How it differs:",
                *differences,
            )
        )
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TunnelError(f"cannot read {path}: {error.strerror}") from error


def _said(where: Manager, *words: str) -> str:
    return " ".join(["systemctl", *where.line(*words)[1:]])
