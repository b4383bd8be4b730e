"""Of what kind the targets of samples are, which say it by their types and values alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nni_spos.data.targets import Targets, as_targets
from nni_spos.errors import DataError
from nni_spos.values import shown


def sample_targets(values: Sequence[Any]) -> tuple[str, Targets]:
    """Return the kind of targets, as `nni_spos.recipe.dataset.DatasetSpec` has it, and an array.

    Parameters
    ----------
    values
        One for each image: a whole number is a class; several, all of them 0 or 1, are labels;
        other numbers are values; a table of whole numbers is a mask.

    Raises
    ------
    DataError
        They are nothing of this, or not all of one shape; the message names an image.
    """
    found = [np.asarray(x) for x in values]
    for index, value in enumerate(found):
        is_mask = value.ndim == 2 and value.dtype.kind in "iu"
        if value.dtype.kind not in "iufb" or (value.ndim > 1 and not is_mask):
            raise DataError(
                f"the target of image {index} is {shown(values[index])}; must be a number, several "
                "in a row, or a mask of whole numbers."
            )
        if value.shape != found[0].shape:
            raise DataError(
                f"the target of image {index} has the shape {value.shape}, that of image 0 "
                f"{found[0].shape}."
            )
    targets = np.stack(found)
    if targets.ndim == 3:
        return "mask", as_targets(targets)
    is_whole = targets.dtype.kind in "iub"
    if targets.ndim == 1:
        if is_whole:
            return "class", targets.astype(np.int64)
        targets = targets[:, None]
    is_binary = is_whole or targets.shape[1] > 1
    is_labels = is_binary and bool(np.isin(targets, (0, 1)).all())
    return ("labels" if is_labels else "values"), targets.astype(np.float32)
