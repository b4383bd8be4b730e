"""Files with tensors in them: written atomically, loaded without executing anything."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from nni_spos.errors import CheckpointError
from nni_spos.files import write_atomically
from nni_spos.values import expands_beyond, plain_parts

MAX_VALUES = 10_000_000
"""Values in a file, tensors apart from their numbers; a checkpoint has some thousands."""


def save_tensors(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write tensors and plain values; a crash leaves the file that was there before."""
    return write_atomically(file, lambda stream: torch.save(content, stream))


def load_tensors(file: str | os.PathLike[str], hint: str = "") -> Any:
    """Read what `save_tensors` wrote, onto the CPU; nothing in the file is executed.

    The memory that it takes is about the file's size: packed content, which could be a thousand
    times larger, and values that stand for each other again and again are refused.

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
        _check_archive(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
        if expands_beyond(content, MAX_VALUES, plain_parts):
            raise ValueError("it contains itself, or too many values")
        return content
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such checkpoint. {hint}".rstrip()) from None
    except Exception as problem:  # torch.load fails in many ways on files that are not its own
        words = str(problem).split()
        reason = " ".join(words[:12]) or type(problem).__name__
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason}).") from None


def is_loadable(value: Any, like: Tensor) -> bool:
    """Whether a value from a file can be copied into a tensor: the same shape, kind and layout."""
    return (
        isinstance(value, Tensor)
        and value.shape == like.shape
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        and value.is_floating_point() == like.is_floating_point()
    )


def _check_archive(file: str | os.PathLike[str]) -> None:
    """Refuse what PyTorch reads but does not write: older formats, and packed parts.

    Before version 2.6 PyTorch ran code in an archive of the oldest format in spite of
    `weights_only`, and it unpacks whatever is packed.
    """
    size = os.path.getsize(file)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if any(x.compress_type != zipfile.ZIP_STORED for x in parts):
        raise ValueError("it is packed")
    if sum(x.file_size for x in parts) > size:
        raise ValueError("it says that it is larger than it is")
