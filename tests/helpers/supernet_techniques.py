"""Techniques of a supernet's training on a few digits."""

from __future__ import annotations

from typing import Any

from nni_spos.data import DatasetSpec, open_data
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.training_settings import SupernetSettings
from nni_spos.training.composed import Techniques, build_techniques


def digits_spec() -> DatasetSpec:
    """Return what is known of the images."""
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20)).spec


def supernet_techniques(spec: DatasetSpec, *listed: Any, **settings: Any) -> Techniques:
    """Return the techniques of a training of 100 steps; settings are those of the section."""
    settings = {"steps": 100, "batch_size": 10, "techniques": list(listed), **settings}
    return build_techniques(SupernetSettings(**settings), spec)
