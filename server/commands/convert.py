"""`giffusion convert`: a pickle's weights as a safetensors file, read in a sandbox."""

from __future__ import annotations

import argparse
import sys

from giffusion.server.extras import needs_export

_NUM_NAMED = 5


def run(options: argparse.Namespace) -> None:
    """Converts `options.file` to `options.output`, and says what was kept and what was not."""
    with needs_export("convert"):
        from giffusion.export.pickles.convert import convert
    conversion = convert(options.file, options.output)
    for what, names in (
        ("left out, being no weights", conversion.left_out),
        ("cast from float64 to float32", conversion.cast),
    ):
        if names:
            print(f"{what}: {_listed(names)}", file=sys.stderr)
    held = ", ".join(conversion.held) or "nothing"
    print(f"{options.output}: {conversion.num_tensors} tensors, read under: {held}")


def _listed(names: tuple[str, ...]) -> str:
    rest = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
