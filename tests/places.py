"""`make pythons` and `make places`: the suite with each Python, and where little is as usual.

    python -m tests.places --pythons [X.Y ...] [-- ARGUMENTS]
    python -m tests.places [path] [locale] [home] [network] [-- ARGUMENTS]

The first runs the tests once with each Python of 3.11 or newer that is found (on PATH, and what
pyenv has), in an environment of its own in build/pythons; 3.11 must be among them. The second runs
them once in a place that has all of these at once, or those that are named:

* path: a copy of the project, and its Python, in directories with spaces and letters like ä,
* locale: LANG and LC_ALL are C,
* home: HOME is a directory that is not there, and cannot be made,
* network: a network namespace with loopback alone, and without IPv6 (needs root).

ARGUMENTS are pytest's; without any, all runs that `make unit` and `make e2e` run. At the end comes
a table, and the exit status is 1 if anything in it failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
PYTHONS = ROOT / "build/pythons"
COPY = ROOT / "build" / "a place with ä space"
OLDEST = (3, 11)
#: What `path` does not copy: what is made anew there, or is nothing of the project's.
LEFT_OUT = (".*", "__pycache__", "build", "dist", "node_modules", "*.egg-info", "corpus")
SUITES = {"unit": ("--ignore=tests/e2e",), "e2e": ("tests/e2e",)}
PLACES = ("path", "locale", "home", "network")
#: A directory that even root cannot make.
NOWHERE = "/proc/nonexistent"
#: Before a command: loopback alone, and no IPv6 on it.
BARE_NETWORK = (
    *("unshare", "--net", "sh", "-c"),
    'ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec "$@"',
    "sh",
)


@attrs.frozen
class Place:
    """Where the suite runs.

    Args:
      name: for the table.
      python: the interpreter of an environment with the project and its tests installed.
      directory: the project's.
      environ: what is set there.
      prefix: what goes before each command.
    """

    name: str
    python: Path
    directory: Path = ROOT
    environ: Mapping[str, str] = attrs.field(factory=dict)
    prefix: tuple[str, ...] = ()


# --- Pythons -----------------------------------------------------------------------------------


def found_pythons(path: str, pyenv: Path) -> dict[str, Path]:
    """The newest interpreter of each "3.11" and above, by its version: on a path, and pyenv's."""
    candidates = [
        Path(directory) / f"python3.{minor}"
        for directory in path.split(os.pathsep)
        for minor in range(OLDEST[1], 30)
    ]
    candidates += sorted(pyenv.glob("versions/*/bin/python3"))
    newest: dict[str, tuple[tuple[int, ...], Path]] = {}
    for candidate in candidates:
        version = version_of(candidate)
        if version >= OLDEST:
            name = "{}.{}".format(*version)
            newest[name] = max(newest.get(name, ((), candidate)), (version, candidate))
    return {name: newest[name][1] for name in sorted(newest, key=_order)}


def _order(name: str) -> list[int]:
    return [int(part) for part in name.split(".")]


def version_of(python: Path) -> tuple[int, ...]:
    """The version of an interpreter that works and can make environments, or ()."""
    if not os.access(python, os.X_OK):
        return ()
    code = "import sys, venv, ensurepip; print(*sys.version_info[:3])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    return () if done.returncode else tuple(map(int, done.stdout.split()))


def environment(python: Path, directory: Path, project: Path) -> Path:
    """The interpreter of an environment with a project and what its tests need, made if needed."""
    made, own = directory / ".made", directory / "bin/python"
    wanted = f"{python} {(project / 'pyproject.toml').read_text('utf-8')}"
    if not made.exists() or made.read_text("utf-8") != wanted:
        print(f"Installing into {directory} with {python} ...", flush=True)
        subprocess.run([python, "-m", "venv", "--clear", directory], check=True)
        pip = [own, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*pip, "--editable", ".", "--group", "test"], check=True, cwd=project)
        # Where the project is, in ASCII: Python 3.11 reads such a file as its locale would have it.
        for file in directory.glob("lib/python*/site-packages/*tls_tunnel.pth"):
            file.write_text(os.path.relpath(project, file.parent) + "\n", "ascii")
        made.write_text(wanted, "utf-8")
    return own


def each_python(names: list[str]) -> Iterator[Place]:
    """A place for each Python that was found, or for those that are named."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = found_pythons(os.environ["PATH"], pyenv)
    wanted = names or list(found)
    required = names or ["{}.{}".format(*OLDEST)]
    if missing := [name for name in required if name not in found]:
        sys.exit(f"There is no Python {', '.join(missing)} (found: {', '.join(found) or 'none'})")
    for name in wanted:
        yield Place(f"Python {name}", environment(found[name], PYTHONS / name, ROOT))


# --- Places ------------------------------------------------------------------------------------


def odd_place(kinds: list[str]) -> Place:
    """A place that has all of these at once."""
    directory, environ, prefix = ROOT, {}, ()
    if "path" in kinds:
        directory = copy_of_project()
    python = environment(Path(sys._base_executable), directory / "build/its python", directory)
    if "locale" in kinds:
        environ |= {"LANG": "C", "LC_ALL": "C"}
    if "home" in kinds:
        environ |= {"HOME": NOWHERE}
    if "network" in kinds:
        if os.geteuid() != 0:
            sys.exit("A network without IPv6 needs root: name the other places")
        prefix = BARE_NETWORK
    return Place("+".join(kinds), python, directory, environ, prefix)


def copy_of_project() -> Path:
    """Copy the project as it is; an environment that is there already stays."""
    for path in COPY.glob("*"):
        if path.name != "build":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(ROOT, COPY, ignore=ignore, dirs_exist_ok=True)
    shutil.copytree(ROOT / ".ci", COPY / ".ci", dirs_exist_ok=True)
    return COPY


# --- Running -----------------------------------------------------------------------------------


def run(place: Place, suite: str, arguments: tuple[str, ...], workers: str) -> tuple[bool, str]:
    """Run pytest; whether all was well, and a line for the table."""
    started = time.monotonic()
    print(f"\n=== {place.name}: {suite}", flush=True)
    environ = os.environ | place.environ
    command = [*place.prefix, place.python, "-m", "pytest", "-n", workers, *arguments]
    last = ""
    with subprocess.Popen(
        command, cwd=place.directory, env=environ, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
        code = process.wait()
    counts = ", ".join(re.findall(r"\d+ (?:passed|failed|errors?|skipped)\b", last))
    seconds = time.monotonic() - started
    verdict = "green" if code == 0 else "FAILED"
    return code == 0, f"{place.name:<30} {suite:<8} {verdict:<7} {seconds:5.0f} s  {counts}"


def main(words: list[str]) -> int:
    """Run what is asked for; the exit status."""
    at = words.index("--") if "--" in words else len(words)
    own, given = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(prog="tests.places", description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", action="store_true", help="with each Python that is found")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("names", nargs="*", help=f"versions, or some of {', '.join(PLACES)}")
    options = parser.parse_args(own)
    if options.pythons:
        places = each_python(options.names)
    else:
        if unknown := set(options.names) - set(PLACES):
            parser.error(f"there is no place {', '.join(unknown)}")
        places = iter([odd_place(options.names or list(PLACES))])
    suites = {"given": tuple(given)} if given else SUITES
    results = [
        run(place, suite, arguments, options.workers)
        for place in places
        for suite, arguments in suites.items()
    ]
    print("", *(line for _, line in results), sep="\n")
    return 0 if all(green for green, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
