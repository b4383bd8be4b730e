"""Time steps of several paths, and as many steps of single paths, in one training.

Run ``python tests/benchmarks/several_paths.py``. In turns, a training takes steps of single paths
and then one step of the same paths together. A step is all that a training does: images and their
augmentation, forward, backward, the optimizer, and what is logged. Medians of the ratios within a
round are compared, because other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pytorch_lightning import Callback

from nni_spos.recipe.settings import POSITIVE_INT, setting
from nni_spos.training.technique import SUPERNET, Technique

MOST = 1.02
"""Of a step of several paths, over as many steps of one."""


class InTurns(Technique):
    """Trains some paths a step at a time, then all of them in one step, and so on."""

    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe: how many paths."""

        paths: int = setting(POSITIVE_INT, 4)

    def paths(self, paths: Any, sampling: Any, step: int) -> Any:
        """Return the path of a step, or in the last one of a round all of its paths."""
        number = self.settings.paths
        turn, place = divmod(step, number + 1)
        together = [sampling.prior.path(turn * number + i) for i in range(number)]
        return together if place == number else together[place : place + 1]


class Clock(Callback):
    """Takes the time from the end of a step to the end of the next one."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Take the time."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def measure(options: argparse.Namespace) -> list[float]:
    """Return, for each round, the time of the paths together over that of the paths alone."""
    import torch
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace

    from nni_spos.data import open_data
    from nni_spos.path import PathSpace
    from nni_spos.priors import UniformPrior
    from nni_spos.recipe.data_settings import DataSettings
    from nni_spos.recipe.training_settings import SupernetSettings
    from nni_spos.spaces import Form, build_space
    from nni_spos.supernet import SinglePathOneShot
    from nni_spos.training import build_evaluator, training_session

    torch.manual_seed(0)
    spec = DataSettings("digits", image_size=options.image_size, num_validation=100)
    data = open_data(spec)
    space = build_space(options.space, {}, Form.SUPERNET, num_classes=10, in_channels=1,
                        input_size=options.image_size)  # fmt: skip
    prior = UniformPrior(PathSpace.from_model_space(space), seed=0)
    turns = {"name": f"{InTurns.__module__}:InTurns", "paths": options.paths}
    settings = SupernetSettings(
        steps=(options.repeats + 2) * (options.paths + 1),
        batch_size=options.batch_size,
        learning_rate=0.01,
        techniques=[turns],
    )
    clock = Clock()
    evaluator = build_evaluator(settings, data, callbacks=[clock])
    with training_session():
        SinglePathOneShot(prior)(
            RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine()
        )
    # The first round is taken away: momentum is new in it.
    times = np.diff(clock.ends)[options.paths :]
    rounds = times[: options.repeats * (options.paths + 1)].reshape(-1, options.paths + 1)
    return (rounds[:, -1] / rounds[:, :-1].sum(1)).tolist()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the median of the ratios or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="shufflenet_joint_small")
    parser.add_argument("--paths", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=20, help="timed rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    low, median, high = np.quantile(measure(options), (0.25, 0.5, 0.75))
    if options.json:
        print(json.dumps({**vars(options), "quartiles": [low, median, high]}))
    else:
        print(
            f"{options.space}: a step of {options.paths} paths takes {median:.3f} of as many steps "
            f"of one (quartiles {low:.3f} and {high:.3f}; at most {MOST}: "
            f"{'met' if median <= MOST else 'NOT MET'})"
        )
    return int(median > MOST)


if __name__ == "__main__":
    sys.exit(main())
