"""Pictures that trainings left, for a report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.recipe.output import training_curves, training_folder
from nni_spos.recipe.recipe import Recipe


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Parameters
    ----------
    name
        Part of file names, unique in a report.
    caption
        What can be seen.
    content
        Of the file.
    """

    name: str
    caption: str
    content: bytes

    @property
    def address(self) -> str:
        """The picture itself as an address, for a page of one file."""
        return f"data:image/png;base64,{base64.b64encode(self.content).decode('ascii')}"


def read_pictures(recipe: Recipe | None, retrained: FilePath | None) -> Sequence[Picture]:
    """Return the curves of the trainings that there are.

    Parameters
    ----------
    recipe
        Names the files; None if it is not known.
    retrained
        File of the retrained network, instead of the recipe's.
    """
    if recipe is None:
        return ()
    files = {
        "supernet": (recipe.files.supernet, "Training of the supernet."),
        "retraining": (retrained or recipe.files.retrained, "Retraining."),
    }
    found = []
    for name, (weights, caption) in files.items():
        picture = training_curves(training_folder(weights))
        if weights.is_file() and picture.is_file():
            averaged = f"{caption} Figures of a step are moving averages over the steps."
            found.append(Picture(f"curves-{name}", averaged, picture.read_bytes()))
    return found
