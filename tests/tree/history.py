"""Files as they were at another commit."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
#: The commit that figures are compared with: the last one before the packages were parted anew.
BEFORE = "d4a1d7b"


class NoSuchCommit(Exception):
    """The history here does not have the commit."""


@contextmanager
def checkout(revision: str, *paths: str) -> Iterator[Path]:
    """A directory with these paths (all, if none is named) as they were, until the block ends.

    Raises:
      NoSuchCommit: the history here does not have it.
    """
    with TemporaryDirectory(prefix="tls-tunnel-") as directory:
        export(revision, Path(directory), *paths)
        yield Path(directory)


def export(revision: str, directory: Path, *paths: str) -> None:
    """Write these paths (all, if none is named) as they were into a directory.

    Raises:
      NoSuchCommit: the history here does not have it.
    """
    archive = _git("archive", "--format=tar", revision, "--", *paths, revision=revision)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")


def _git(*arguments: str, revision: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise NoSuchCommit(
            f"cannot read commit {revision} ({reason}): this takes a clone with its whole history"
        )
    return done.stdout
