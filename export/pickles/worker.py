"""The process that reads a pickle: `python -I -m giffusion.export.pickles.worker ORDER`.

Started by `convert.py`, with hardly an environment and the new file as its standard output. The
invariant: the sandbox is closed before the pickle is opened. The last line of standard error is a
report, one JSON object: what was written, or the error. Whoever reads it must doubt it, as anything
that comes from here.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# Imported before the sandbox is closed: torch reads and tries all kinds of things then.
from giffusion.export.pickles.pickled_weights import convert_weights, explain
from giffusion.export.pickles.sandbox import confine


def main() -> int:
    """Converts one pickle; returns the exit code."""
    order = json.loads(sys.argv[1])
    source = Path(order["source"])
    output = os.fdopen(os.dup(1), "wb")
    # What a library prints must not land in the file.
    os.dup2(2, 1)
    report: dict[str, Any] = {"held": confine([source], order["limits"])}
    try:
        with output:
            report |= convert_weights(source, output)
    except BaseException as error:
        # The parent must learn of it, whatever it is; a traceback would say no more.
        report["error"] = explain(error)
        report["errno"] = getattr(error, "errno", None)
    print("\n" + json.dumps(report), file=sys.stderr, flush=True)
    return 1 if "error" in report else 0


if __name__ == "__main__":
    sys.exit(main())
