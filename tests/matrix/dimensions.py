"""What a scenario can run on. Another dimension, or another value of one, is one line here."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tests.e2e.rig import OWN
from tests.matrix.entries import ENTRIES

ROOT = Path(__file__).parents[2]
#: The copy of the project with its engine compiled; `make` makes it.
COMPILED = ROOT / "build" / "compiled"

#: What starts `tls-tunnel`, by how its engine runs.
ENGINES: dict[str, tuple[str, ...]] = {
    "interpreted": OWN,
    "compiled": ("env", f"PYTHONPATH={COMPILED}", sys.executable, "-P", "-m", "tunnel"),
}

#: Each dimension with its values.
DIMENSIONS: dict[str, Iterable[str]] = {
    "engine": ENGINES,
    "entry": ENTRIES,
    "carrier": ("hub", "relay"),
}
