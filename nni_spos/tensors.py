"""Files with tensors in them: written atomically, loaded without executing anything."""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import Any

import torch

from nni_spos.errors import CheckpointError
from nni_spos.files import write_atomically


def save_tensors(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write tensors and plain values; a crash leaves the file that was there before."""
    return write_atomically(file, lambda stream: torch.save(content, stream))


def load_tensors(file: str | os.PathLike[str], hint: str = "") -> Any:
    """Read what `save_tensors` wrote, onto the CPU; nothing in the file is executed.

    Parameters
    ----------
    file
        What to read.
    hint
        What to do if it is not there.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or would run code.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such checkpoint. {hint}".rstrip()) from None
    except Exception as problem:  # torch.load fails in many ways on files that are not its own
        words = str(problem).split()
        reason = " ".join(words[:12]) or type(problem).__name__
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason}).") from None
