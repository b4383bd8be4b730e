"""Loss, accuracy and learning rate over the steps of a training, as a picture at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from nni_spos.display.figures import open_panels, save
from nni_spos.recipe.output import training_curves
from nni_spos.tasks.lookup import result_title
from nni_spos.training.callbacks import RATE, is_steady
from nni_spos.training.technique import HELD_OUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WEIGHT = 0.05
"""Of a new step in the moving averages: every step of a supernet trains another path."""

MOST_POINTS = 2000
"""Points of a curve; of a longer training every second one is left out, again and again."""


COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7")


class Curves(Callback):
    """Note what a training logs, and draw it at the end; a resumed one has all of its curves.

    Parameters
    ----------
    folder
        Of the training: ``curves.png`` is written there.
    every
        Steps between two points at first.
    """

    def __init__(self, folder: FilePath, every: int):
        self._file = training_curves(folder)
        self._every = max(1, every)
        self._averages: dict[str, Tensor] = {}
        self._points: dict[str, list[tuple[int, float]]] = {}
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:  # gradients are accumulated
            return
        self._step = step
        metrics = trainer.callback_metrics  # made anew at every look
        for name, value in metrics.items():
            before = self._averages.get(name, value)
            self._averages[name] = (
                value if is_steady(name) else torch.lerp(before, value.to(before), WEIGHT)
            )
        # Reading a number waits for the device, so not all of them are read.
        if step % self._every == 0 or step == 1:
            for name, value in self._averages.items():
                self._points.setdefault(name, []).append((step, float(value)))
            if max(map(len, self._points.values())) > MOST_POINTS:
                self._every *= 2
                self._points = {
                    name: [point for point in points if point[0] % self._every == 0]
                    for name, points in self._points.items()
                }

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._points:
            draw_curves(self._points, self._file)

    def state_dict(self) -> dict[str, Any]:
        return {
            "every": self._every,
            "averages": {name: value.cpu() for name, value in self._averages.items()},
            "points": {
                name: torch.tensor(points, dtype=torch.float64)
                for name, points in self._points.items()
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._every = int(state_dict["every"])
        self._averages = dict(state_dict["averages"])
        self._points = {
            name: [(int(step), value) for step, value in points.tolist()]
            for name, points in state_dict["points"].items()
        }


def draw_curves(curves: Mapping[str, list[tuple[int, float]]], file: FilePath) -> None:
    """Draw each curve in a panel of its own, the learning rate last.

    Parameters
    ----------
    curves
        Points (step, value) by what was logged.
    file
        PNG to write.
    """
    names = sorted(curves, key=lambda name: (name == RATE, name != "loss"))
    figure, rows = open_panels(6.0, [1.7] * len(names), 1)
    for name, [axes], colour in zip(names, rows, COLOURS * len(names), strict=False):
        _draw(axes, curves[name], colour)
        axes.set_ylabel(axis_title(name))
    rows[-1][0].set_xlabel("step")
    save(figure, file)


def axis_title(name: str) -> str:
    """Return what stands at the axis of something that is logged."""
    if name == RATE:
        return "learning rate"
    if name.startswith(HELD_OUT):
        return f"held-out {result_title(name.removeprefix(HELD_OUT))}"
    return result_title(name)


def _draw(axes: Axes, points: list[tuple[int, float]], colour: str) -> None:
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2)
    axes.grid(color="#d8d8d8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
