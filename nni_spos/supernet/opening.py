"""A supernet from its file, for those who have the space and no recipe."""

from __future__ import annotations

import os

from nni.nas.nn.pytorch import ModelSpace

from nni_spos.errors import CheckpointError
from nni_spos.supernet.checkpoint import load_supernet, restore_supernet
from nni_spos.supernet.strategy import SinglePathOneShot


def open_supernet(file: str | os.PathLike[str], space: ModelSpace) -> ModelSpace:
    """Return the supernet of a file: what ``nni-spos train`` or ``nni-spos import`` wrote.

    Parameters
    ----------
    file
        Nothing in it is executed.
    space
        Built as it was for the training. It becomes the supernet, in place, unless it is one.

    Returns
    -------
    The space with the weights of the file, in the mode that it was in. Set a path, or give it to
    `nni_spos.evaluate_path` or `nni_spos.extract_subnet`.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or belongs to another space; the message
        names the first label or weight that differs.
    """
    checkpoint = load_supernet(file)
    supernet = SinglePathOneShot().mutate_model(space)
    try:
        restore_supernet(supernet, checkpoint)
    except CheckpointError as problem:
        raise CheckpointError(f"{file}: {problem}") from None
    return supernet
