"""What the code looks like to a reader, in figures. `python tests/structure.py --help`

Without an option: the hops between the server's session and its port, seen in a session that runs;
exits 1 if there are too many. With `--figures`: modules, lines, functions, circles and prose, now
and at another commit; exits 1 where a promise about them is missed. With `--tests BASE`: the tests
that have vanished since then, and their successors; exits 1 where one has none.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started by its path: what it imports is found from the root all the same
    sys.path[0] = str(Path(__file__).parents[1])

from tests.tree.command import main

if __name__ == "__main__":
    assert __doc__ is not None
    main(__doc__)
