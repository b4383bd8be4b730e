"""The supernet: how its single paths are trained and scored, and the file that it is kept in."""

from nni_spos.modules.subnet import extract_subnet
from nni_spos.scoring.evaluation import Evaluation, evaluate_path, evaluate_paths
from nni_spos.supernet.checkpoint import (
    SupernetCheckpoint,
    load_supernet,
    restore_supernet,
    save_supernet,
)
from nni_spos.supernet.opening import open_supernet
from nni_spos.supernet.strategy import SinglePathModule, SinglePathOneShot

__all__ = [
    "Evaluation",
    "SinglePathModule",
    "SinglePathOneShot",
    "SupernetCheckpoint",
    "evaluate_path",
    "evaluate_paths",
    "extract_subnet",
    "load_supernet",
    "open_supernet",
    "restore_supernet",
    "save_supernet",
]
