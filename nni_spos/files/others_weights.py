"""State dicts that others wrote, also those of PyTorch before version 1.6: nothing is executed.

That older format is a row of pickles with the numbers behind them. It is followed with stand-ins
first, as archives are, see `nni_spos.files.pickled_values`.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nni_spos.errors import CheckpointError
from nni_spos.files.archives import reason_of
from nni_spos.files.pickled_values import check_pickle
from nni_spos.files.tensors import MAX_PICKLE, load_undamaged
from nni_spos.values import shown

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of the older format begins: a pickle of a number."""

NUM_HEADS = 3
"""Pickles before that of the content: the number, a version, and sizes on the machine."""

STATE_DICT = "state_dict"
"""Key of the weights in a file that has more in it."""

WRAPPER = "module."
"""How all names begin that ``nn.DataParallel`` gave."""


def load_others_weights(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict: the file's content, or what it has under ``state_dict``.

    A prefix ``module.`` that all names have is left out.

    Parameters
    ----------
    file
        As ``torch.save`` writes it, of any version.

    Returns
    -------
    Tensors by name, on the CPU.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or holds no state dict.
    """
    content = _load_older(file) if _is_older(file) else load_undamaged(file)
    found = content.get(STATE_DICT, content) if isinstance(content, Mapping) else content
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{file}: is no state dict, but a {type(found).__name__}. Save network.state_dict()."
        )
    odd = [k for k, v in found.items() if not isinstance(k, str) or not isinstance(v, Tensor)]
    if odd:
        raise CheckpointError(
            f"{file}: is no state dict: {shown(odd[0])} in it is a {type(found[odd[0]]).__name__}, "
            "not a tensor. Save network.state_dict()."
        )
    if all(name.startswith(WRAPPER) for name in found):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in found.items()}
    return dict(found)


def _is_older(file: str | os.PathLike[str]) -> bool:
    try:
        with open(file, "rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file.") from None


def _load_older(file: str | os.PathLike[str]) -> Any:
    try:
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            check_pickle(_read_pickle(stream), lambda key: size)
            stream.seek(0)
            # PyTorch reads no more numbers than there are, whatever the pickle says.
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch.load fails in many ways on files that are not its own
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason_of(problem)}).") from None


def _read_pickle(stream: BinaryIO) -> bytes:
    """Return the pickle that says what the content is. Raises ValueError."""
    for _ in range(NUM_HEADS):
        _skip_pickle(stream)
    begin = stream.tell()
    _skip_pickle(stream)
    length = stream.tell() - begin
    stream.seek(begin)
    return stream.read(length)


def _skip_pickle(stream: BinaryIO) -> None:
    begin = stream.tell()
    for _ in pickletools.genops(stream):
        if stream.tell() - begin > MAX_PICKLE:
            raise ValueError("it has a pickle that is too large")
