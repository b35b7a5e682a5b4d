"""`python -m giffusion.server`: the same as `giffusion`."""

from __future__ import annotations

import sys

from giffusion.server.cli import main

if __name__ == "__main__":
    sys.exit(main())
