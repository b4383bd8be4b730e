"""The end of a training whose loss is no number any more."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nni_spos.errors import NotFiniteError

INTERVAL = 10
"""Steps between two looks on a device that would have to be waited for."""


class LossNotFinite(NotFiniteError):
    """The loss of a step is not finite.

    Parameters
    ----------
    step
        Of the training, from 0.
    detail
        What is known of the step beside.
    """

    def __init__(self, step: int, detail: str = ""):
        self.step = step
        super().__init__(
            f"the loss is not finite in step {step}{detail}. Look at what the network computes "
            "there (logarithms, divisions, roots), or train with a lower learning_rate, with "
            "warmup_steps, or with gradient_clip."
        )


class FiniteLoss:
    """Notes the first step whose loss is not finite, and ends the training soon after it.

    On a GPU the loss itself is not looked at in every step, which would wait for the step's end.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def note(self, loss: Tensor, step: int) -> None:
        """Take the loss of a step, shape (). Raises LossNotFinite."""
        if loss.device.type == "cpu":
            if not math.isfinite(float(loss)):
                raise LossNotFinite(step)
            return
        if self._first is None:
            self._first = torch.full((), math.inf, device=loss.device, dtype=torch.float64)
        found = torch.where(loss.isfinite(), math.inf, float(step)).to(torch.float64)
        self._first = torch.minimum(self._first, found)
        if step % INTERVAL == INTERVAL - 1:
            self.check()

    def check(self) -> None:
        """Wait for what was noted. Raises LossNotFinite."""
        if self._first is not None and math.isfinite(first := float(self._first)):
            raise LossNotFinite(int(first))
