"""What runs inside a sandbox, under the image's own Python: one task, its arguments on standard input, as JSON.

The result goes to what was standard output at the start, behind a mark that the caller made up, since a .pth file can
print before this runs; whatever is printed later goes to standard error. Only the standard library is used, of any
Python from 3.8 on, and nothing is imported before it is needed: the image is watched here, and should find as little of
its watcher as possible.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Does the task that the first argument names; the second is the mark."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    arguments = json.load(sys.stdin)
    name = sys.argv[1]
    space: dict[str, Any] = {"__name__": "deadweight_" + name}
    with open(os.path.join(here, name + ".py"), encoding="utf-8") as file:
        exec(compile(file.read(), name + ".py", "exec"), space)
    result.write(sys.argv[2])
    json.dump(space["run"](arguments), result)
    result.flush()
    os._exit(0)


main()
