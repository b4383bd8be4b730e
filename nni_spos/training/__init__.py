"""Training of weights, the same for a supernet and for a single network.

Its names are loaded when they are first used: reading a recipe imports `technique` and the folder
`techniques`, and must not import PyTorch.
"""

from typing import TYPE_CHECKING

from nni_spos.process.lazy_names import lazy_names

if TYPE_CHECKING:
    from nni_spos.training.callbacks import TrainingCost as TrainingCost
    from nni_spos.training.checkpoints import Identity as Identity
    from nni_spos.training.checkpoints import Start as Start
    from nni_spos.training.checkpoints import check_finished as check_finished
    from nni_spos.training.checkpoints import exclusive as exclusive
    from nni_spos.training.checkpoints import is_written as is_written
    from nni_spos.training.checkpoints import last_checkpoint as last_checkpoint
    from nni_spos.training.checkpoints import prepare_start as prepare_start
    from nni_spos.training.checkpoints import tensor_shapes as tensor_shapes
    from nni_spos.training.evaluator import build_evaluator as build_evaluator
    from nni_spos.training.evaluator import training_session as training_session
    from nni_spos.training.module import TaskModule as TaskModule
    from nni_spos.training.threads import threads_for as threads_for

_CHECKPOINTS = ("Identity", "Start", "check_finished", "exclusive", "is_written",
                "last_checkpoint", "prepare_start", "tensor_shapes")  # fmt: skip

HOMES = {
    **dict.fromkeys(_CHECKPOINTS, "nni_spos.training.checkpoints"),
    "TaskModule": "nni_spos.training.module",
    "TrainingCost": "nni_spos.training.callbacks",
    "build_evaluator": "nni_spos.training.evaluator",
    "threads_for": "nni_spos.training.threads",
    "training_session": "nni_spos.training.evaluator",
}

__all__ = [
    "Identity",
    "Start",
    "TaskModule",
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

__getattr__ = lazy_names(__name__, HOMES)
