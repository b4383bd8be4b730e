"""The supernet: how its single paths are trained, and how a path is scored with its weights."""

from nni_spos.supernet.checkpoint import (
    SupernetCheckpoint,
    load_supernet,
    restore_supernet,
    save_supernet,
)
from nni_spos.supernet.evaluation import Evaluation, evaluate_path, evaluate_paths, score
from nni_spos.supernet.recalibration import recalibrate
from nni_spos.supernet.strategy import SinglePathModule, SinglePathOneShot
from nni_spos.supernet.subnet import extract_subnet

__all__ = [
    "Evaluation",
    "SinglePathModule",
    "SinglePathOneShot",
    "SupernetCheckpoint",
    "evaluate_path",
    "evaluate_paths",
    "extract_subnet",
    "load_supernet",
    "recalibrate",
    "restore_supernet",
    "save_supernet",
    "score",
]
