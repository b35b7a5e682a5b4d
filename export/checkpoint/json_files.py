"""The small files of a checkpoint, JSON objects all.

Called by the readers. The invariant: whatever such a file holds, it ends in an object or in one
line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from giffusion.engine.errors import ModelError, reason_of

PIPELINE = "a diffusers StableDiffusionPipeline folder"


def read_json(path: Path, expected: str = PIPELINE) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file.
        expected: what the user should have given, for the message where it is missing.

    Raises:
        ModelError: it is missing, cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path} is missing: expected {expected}") from None
    except RecursionError:
        raise ModelError(f"{path} cannot be read: it is nested too deeply for JSON") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {reason_of(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object: expected {expected}")
    return content
