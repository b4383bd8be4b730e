"""Images for supernet, search and retraining: three splits that never share an image.

`open_data` opens the data set of a recipe; nothing is opened at import. The names are loaded when
they are first used: NNI's tuner and trials ask a data set what it is, and must not import PyTorch
for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_spos.process.lazy_names import lazy_names

if TYPE_CHECKING:
    from nni_spos.data.datasets import dataset_spec
    from nni_spos.data.evaluation import EvaluationBatches
    from nni_spos.data.loaders import ImageData, open_data
    from nni_spos.data.reading import Batch
    from nni_spos.data.stores import ImageStore
    from nni_spos.data.training_batches import TrainBatches
    from nni_spos.data.transforms import check_preprocessing
    from nni_spos.recipe.dataset import Dataset, DatasetSpec

__all__ = [
    "Batch",
    "Dataset",
    "DatasetSpec",
    "EvaluationBatches",
    "ImageData",
    "ImageStore",
    "TrainBatches",
    "check_preprocessing",
    "dataset_spec",
    "open_data",
]

_HOMES = {
    "Batch": "nni_spos.data.reading",
    "Dataset": "nni_spos.recipe.dataset",
    "DatasetSpec": "nni_spos.recipe.dataset",
    "EvaluationBatches": "nni_spos.data.evaluation",
    "ImageData": "nni_spos.data.loaders",
    "ImageStore": "nni_spos.data.stores",
    "TrainBatches": "nni_spos.data.training_batches",
    "check_preprocessing": "nni_spos.data.transforms",
    "dataset_spec": "nni_spos.data.datasets",
    "open_data": "nni_spos.data.loaders",
}

__getattr__ = lazy_names(__name__, _HOMES)
