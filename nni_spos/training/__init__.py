"""Training of weights, the same for a supernet and for a single network."""

from nni_spos.training.callbacks import TrainingCost
from nni_spos.training.checkpoints import (
    Identity,
    Start,
    check_finished,
    exclusive,
    is_written,
    last_checkpoint,
    prepare_start,
    tensor_shapes,
)
from nni_spos.training.evaluator import build_evaluator, training_session
from nni_spos.training.module import ImageClassification
from nni_spos.training.threads import threads_for

__all__ = [
    "Identity",
    "ImageClassification",
    "Start",
    "TrainingCost",
    "build_evaluator",
    "check_finished",
    "exclusive",
    "is_written",
    "last_checkpoint",
    "prepare_start",
    "tensor_shapes",
    "threads_for",
    "training_session",
]
