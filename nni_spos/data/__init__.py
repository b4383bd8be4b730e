"""Images for supernet, search and retraining: three splits that never share an image.

`open_data` opens the data set of a recipe; nothing is opened at import.
"""

from nni_spos.data.datasets import DatasetSpec, dataset_spec
from nni_spos.data.evaluation import EvaluationBatches
from nni_spos.data.loaders import ImageData, TrainBatches, open_data
from nni_spos.data.reading import Batch
from nni_spos.data.transforms import check_preprocessing

__all__ = [
    "Batch",
    "DatasetSpec",
    "EvaluationBatches",
    "ImageData",
    "TrainBatches",
    "check_preprocessing",
    "dataset_spec",
    "open_data",
]
