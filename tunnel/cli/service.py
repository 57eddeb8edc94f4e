"""What a unit has to say so that a server or a client can run as a service on this machine.

`tunnel.ops.units` writes the text of the unit; here is what depends on the configuration, the
permissions of files and where this program is installed.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunnel import store
from tunnel.cli.loading import named_files, read_text
from tunnel.config import ClientConfig, Kind, ServerConfig
from tunnel.config.load import load_client, load_server
from tunnel.errors import TunnelError
from tunnel.ops.units import Service, name_fault, path_fault

#: Directories that the service sees as empty (`ProtectHome=`, systemd.exec(5)).
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
#: And those of which it has its own (`PrivateTmp=`).
_HIDDEN = (*_HOMES, Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # nothing is written there
#: A port below needs `CAP_NET_BIND_SERVICE` (capabilities(7)).
_FIRST_FREE_PORT = 1024


def describe(
    kind: str, config: Path, *, name: str, own: bool = False, group: str | None = None
) -> Service:
    """Find what the unit for a configuration has to say.

    The environment does not count, for the service will not have it.

    Args:
      kind: "server" or "client".
      config: the file.
      name: the unit's, without `.service`.
      own: it is for the systemd of this user, not of the system.
      group: it may read the files, and the service joins it; None to hand the service copies.

    Raises:
      ConfigError: the configuration has faults.
      TunnelError: a service could not run with it; says why.
    """
    if problem := name_fault(name):
        raise TunnelError(f"the name {name!r} {problem}")
    config = config.absolute()
    value = _load(kind, config)
    files = tuple(_files(value, config.parent))
    if not own:
        _check_state(value, config, name)
    command = (*program(), kind, "-c", str(config))
    for path in (config, *files, Path(command[0])):
        if problem := path_fault(path):
            raise TunnelError(f"the path {path} {problem}")
    if group is not None:
        _check_readable((config, *files), group)
    return Service(
        name=name,
        description=f"tls-tunnel {kind} ({config.name})",
        command=command,
        config=config,
        files=files,
        closed=tuple(closed_directories((config, *files))),
        sockets=tuple(_hidden_sockets(value)),
        low_ports=_wants_low_ports(value),
        grace=value.shutdown_grace if isinstance(value, ServerConfig) else 0,
        own=own,
        group=group,
    )


def _load(kind: str, path: Path) -> ServerConfig | ClientConfig:
    text = read_text(path, kind)
    load = load_server if kind == Kind.SERVER else load_client
    return load(text, source=str(path), environ={}).value


def _files(value: ServerConfig | ClientConfig, base: Path) -> Iterator[Path]:
    """The files that a configuration names, each once.

    Args:
      value: the configuration.
      base: the directory that its paths are relative to.

    Raises:
      TunnelError: one is not there.
    """
    files = (store.resolve(name, base=base) for _, _, name in named_files(value) if name)
    for path in dict.fromkeys(files):
        if not path.is_file():
            raise TunnelError(f"the configuration names {path}, and there is no such file")
        yield path


def _check_state(value: ServerConfig | ClientConfig, config: Path, name: str) -> None:
    """Go on only if the state is where a service of the system may write.

    Raises:
      TunnelError: it is not.
    """
    if value.state_dir is not None:
        raise TunnelError(
            f"{config}: state_dir = {value.state_dir!r}: a service keeps its state in "
            f"/var/lib/{name}, which alone it can write: take the key out (and copy what is in the "
            "directory there, so that pins and identities stay)"
        )


def _check_readable(files: Iterable[Path], group: str) -> None:
    """Go on only if members of a group can read the files, where links lead to, too.

    Raises:
      TunnelError: they cannot, or there is no such group; says how to change that.
    """
    import grp

    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise TunnelError(f"there is no group {group}: groupadd --system {group}") from None
    for file in files:
        if not _lets(file, number, stat.S_IRGRP, stat.S_IROTH):
            raise TunnelError(
                f"group {group} cannot read {file}: chgrp {group} {file} && chmod 640 {file}"
            )
        if directory := _barred_directory(file, number):
            raise TunnelError(
                f"group {group} cannot enter {directory}, where {file} is: "
                f"chgrp {group} {directory} && chmod 750 {directory}"
            )


def _barred_directory(file: Path, group: int) -> Path | None:
    """The innermost directory on the way to a file that members of a group cannot enter."""
    for directory in file.resolve().parents:
        if not _lets(directory, group, stat.S_IXGRP, stat.S_IXOTH):
            return directory
    return None


def _lets(path: Path, group: int, of_group: int, of_others: int) -> bool:
    """Whether a member of a group may do something: one bit of the mode for it, one for others."""
    found = path.stat()
    return bool(found.st_mode & (of_group if found.st_gid == group else of_others))


def closed_directories(files: Iterable[Path]) -> list[Path]:
    """Find the outermost directory on the way to each file that other users cannot enter.

    A directory in a home is left out, for the service sees no homes at all.

    Args:
      files: absolute paths. Where one is a link, the way to what it leads to counts as well.
    """
    found: dict[Path, None] = {}
    for file in files:
        for path in (file, file.resolve()):
            barred = next(filter(_bars_others, reversed(path.parents)), None)
            if barred is not None and not _within(path, _HOMES):
                found[barred] = None
    return list(found)


def _bars_others(directory: Path) -> bool:
    return not directory.stat().st_mode & stat.S_IXOTH


def _within(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)


def _hidden_sockets(value: ServerConfig | ClientConfig) -> Iterator[Path]:
    """Directories of local services' sockets that the service would not see by itself."""
    if isinstance(value, ServerConfig):
        return
    paths = (Path(proxy.unix_path) for proxy in value.proxies if proxy.unix_path)
    yield from dict.fromkeys(path.parent for path in paths if _within(path.parent, _HIDDEN))


def _wants_low_ports(value: ServerConfig | ClientConfig) -> bool:
    """Whether the program listens on a port below 1024, or may have to for one of its clients."""
    if isinstance(value, ClientConfig):
        ports = [value.stats_port, *(visitor.bind_port for visitor in value.visitors)]
    else:
        allowed = [value.allow_ports, *(each.allow_ports or () for each in value.clients)]
        ports = [value.bind_port, value.stats_port]
        ports += [each.first for ranges in allowed for each in ranges]
    return any(0 < (port or 0) < _FIRST_FREE_PORT for port in ports)


def program() -> tuple[str, ...]:
    """The beginning of the command line that starts this installation, wherever it is."""
    script = Path(sysconfig.get_path("scripts"), "tls-tunnel")
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-I", "-m", "tunnel")


def unreachable() -> str | None:
    """Why a service of the system, which runs as another user, could not start us; or None."""
    for path in map(Path, (program()[0], sys.executable, sys.prefix, sys.base_prefix)):
        real = path.resolve()
        # A file of the installation may be a link that leads elsewhere. Both ways must be open.
        for each in (path, real):
            if _within(each, _HOMES) or any(map(_bars_others, each.parents)):
                return (
                    f"the service could not run {each}, for it has no access to that directory: "
                    "install tls-tunnel for all users, for example with `pipx install --global`, "
                    "or use --user"
                )
    return None
