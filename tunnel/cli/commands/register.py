"""`tls-tunnel register` and `unregister`: a systemd service of a server or a client."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import attrs
import typer

from tunnel.cli.options import Config, Kind
from tunnel.errors import TunnelError

if TYPE_CHECKING:
    from tunnel.ops.units import Service

UnitName = Annotated[
    str | None,
    typer.Option("--name", "-n", metavar="NAME", help="The unit's. [tls-tunnel-server|client]"),
]
Own = Annotated[bool, typer.Option("--user", help="A service of this user, not of the system.")]

#: sd_booted(3): this directory exists if systemd runs the machine.
_BOOTED: Final = Path("/run/systemd/system")
#: Where an administrator's units are, and those of packages.
_SYSTEM: Final = Path("/etc/systemd/system")
_SHIPPED: Final = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))


def register(
    kind: Annotated[Kind, typer.Argument(help="What to run.", show_default=False)],
    config: Config,
    name: UnitName = None,
    own: Own = False,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="Read the files in place, as a member of this group; so they can be reloaded.",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print the unit, and change nothing.")
    ] = False,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start it now and at each boot.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a unit of somebody.")] = False,
) -> None:
    """Make a systemd service of a server or a client."""
    from tunnel.cli.service import describe, unreachable
    from tunnel.ops.units import unit_text

    name = name or f"tls-tunnel-{kind}"
    service = describe(kind.value, config, name=name, own=own, group=group)
    problem = None if own else unreachable()
    if show:
        print(unit_text(service), end="")
        if problem:
            print(f"note: {problem}", file=sys.stderr)
        return
    systemd = manager(own=own, environ=os.environ)
    if problem and not force:
        raise TunnelError(problem)
    print(install(service, systemd, start=start, force=force))


def unregister(
    kind: Annotated[Kind, typer.Argument(help="What was registered.", show_default=False)],
    name: UnitName = None,
    own: Own = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the unit was edited.")] = False,
) -> None:
    """Stop such a service and remove it; its configuration and its state are kept."""
    systemd = manager(own=own, environ=os.environ)
    print(remove(name or f"tls-tunnel-{kind}", systemd, force=force))


@attrs.frozen(kw_only=True)
class Manager:
    """The systemd that a unit is for.

    Args:
      directory: where units are written.
      own: it is a user's, not the system's.
      shipped: other directories with units; a unit of ours with the same name would hide theirs.
      systemctl: the program that gives it orders.
    """

    directory: Path
    own: bool = False
    shipped: tuple[Path, ...] = ()
    systemctl: str = "systemctl"

    def path(self, name: str) -> Path:
        """Where the unit of that name is, or would be."""
        return self.directory / f"{name}.service"

    def line(self, *words: str) -> list[str]:
        """The command line that gives an order: the words that follow `systemctl`."""
        return [self.systemctl, *(["--user"] if self.own else []), *words]

    def tell(self, *words: str) -> None:
        """Give an order, and wait until it is done.

        Args:
          words: what follows `systemctl` on the command line.

        Raises:
          TunnelError: systemctl(1) failed; with the first line of what it said.
        """
        line = self.line(*words)
        # There is no shell, and the words are ours: the name of a unit has been checked.
        done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            said = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
            raise TunnelError(f"`systemctl {' '.join(line[1:])}` failed: {said}")


def manager(*, own: bool, environ: Mapping[str, str]) -> Manager:
    """Find the systemd of this machine, or of this user.

    Args:
      own: that of the user.
      environ: usually `os.environ`.

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
    """Write a unit and have systemd run it.

    Args:
      service: what the unit runs.
      where: the systemd.
      start: start it now and at each boot; else only write the unit.
      force: overwrite a unit that is not ours, or was edited.

    Returns:
      What was done, for people.

    Raises:
      TunnelError: a unit is in the way, or systemd says no.
    """
    from tunnel import store
    from tunnel.ops.units import unit_text

    path, text = where.path(service.name), unit_text(service)
    if not force:
        _refuse_surprise(path, text, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomic(store.File(path, text.encode(), 0o644))
    where.tell("daemon-reload")
    if not start:
        return f"Wrote {path}. Start it with: {_as_typed(where, 'enable', '--now', service.name)}"
    where.tell("enable", service.name)
    try:
        where.tell("restart", service.name)
    except TunnelError as error:
        log = f"journalctl {'--user ' if where.own else ''}-u {service.name} -n 30"
        raise TunnelError(f"{path} is written and enabled, but {error} See: {log}") from error
    return f"Wrote {path} and started it. See: {_as_typed(where, 'status', service.name)}"


def remove(name: str, where: Manager, *, force: bool) -> str:
    """Stop a service and remove its unit.

    Args:
      name: the unit's, without `.service`.
      where: the systemd.
      force: remove a unit that is not ours, or was edited, too.

    Returns:
      What was done, for people.

    Raises:
      TunnelError: there is none, it is not ours, or systemd says no.
    """
    from tunnel.ops.units import edited, name_fault

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
    """Go on only if a unit neither hides one of a package nor overwrites an edited one.

    Raises:
      TunnelError: it would; with the differences.
    """
    from tunnel.ops.units import edited

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


def _as_typed(where: Manager, *words: str) -> str:
    return " ".join(["systemctl", *where.line(*words)[1:]])
