"""Learning rates by the size of a path, and momentum by it: ``complexity_decay``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_spos.errors import RecipeError
from nni_spos.priors.uniform import UniformPrior
from nni_spos.recipe.settings import POSITIVE_INT, real, setting
from nni_spos.training.technique import SUPERNET, Compute, Technique

if TYPE_CHECKING:
    from pytorch_lightning import Callback
    from torch import Tensor
    from torch.optim import Optimizer

    from nni_spos.path import Path
    from nni_spos.priors.base import Prior
    from nni_spos.training.sampling import Sampling

NUM_DRAWN = 1000
"""Random paths whose sizes say where groups end."""


class ComplexityAware(Technique):
    """Let the learning rate fall later for large paths, and keep momentum apart by size.

    Large paths need more steps than small ones and get as many, so that a supernet underrates them.
    With linear decay the rate of a step is ``learning_rate * (1 - t / T) ** e``. Here ``e`` is
    ``1 / complexity_decay`` for the largest path of the space, ``complexity_decay`` for the
    smallest, and 1 halfway between. Size is bit operations, or multiply-adds in a space without
    bits. It is the gradient that is multiplied, so that each keeps its rate in the momentum; weight
    decay follows the schedule as ever.

    Paths of one group share their momentum, and those of others have their own. Groups are by size,
    and random paths are equally often in each.

    References
    ----------
    Jeon et al., Subnet-Aware Dynamic Supernet Training for Neural Architecture Search, CVPR 2025.
    There groups are by structure, and rates themselves are multiplied.
    """

    title = "complexity_decay"
    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        complexity_decay
            How much faster the learning rate falls for the smallest path, and slower for the
            largest one; 1: alike for all.
        momentum_groups
            Groups of paths by size, each with a momentum of its own.
        """

        complexity_decay: float = setting(real(1, 10), 1.0)
        momentum_groups: int = setting(POSITIVE_INT, 1)

    @classmethod
    def switches(cls) -> Sequence[str]:
        """Each by itself."""
        return ("complexity_decay", "momentum_groups")

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """Ones change nothing."""
        return settings != cls.Settings()

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        key = "momentum_groups" if settings.momentum_groups > 1 else "complexity_decay"
        names = [x.name for x in training.settings.techniques if x.is_on()]
        if "opt" in names:
            raise RecipeError(f"{key}: is for SGD as it is without opt. Leave one of them out.")
        if settings.momentum_groups > 1 and not training.settings.momentum:
            raise RecipeError(
                "momentum_groups: momentum is 0. Give momentum: 0.9, or leave momentum_groups out."
            )
        if settings.momentum_groups > 1 and "paths" in names:
            raise RecipeError(
                "momentum_groups: the paths of a step share one momentum. Leave paths out."
            )
        self._step = 0
        self._path: Path = {}
        self._figures: Mapping[str, Tensor] = {}
        self._current = 0
        self._momenta: dict[int, list[Tensor | None]] = {}

    def prior(self, sampling: Sampling) -> Prior:
        self._size, self._num_steps = sampling.size, sampling.num_steps
        self._smallest, self._largest = sampling.size.cheapest()[0], sampling.size.dearest()[0]
        space = sampling.prior.space
        drawn = UniformPrior(space).draw(NUM_DRAWN, np.random.default_rng(0))
        shares = np.arange(1, self.settings.momentum_groups) / self.settings.momentum_groups
        self._ends = np.quantile(self._size.price_many(drawn), shares)
        return sampling.prior

    def callbacks(self) -> Sequence[Callback]:
        if self.settings.momentum_groups == 1:
            return ()
        from pytorch_lightning.callbacks import LambdaCallback

        return [LambdaCallback(on_before_optimizer_step=lambda _, __, x: self._exchange(x))]

    def paths(self, paths: Sequence[Path], sampling: Sampling, step: int) -> Sequence[Path]:
        if self.settings.momentum_groups > 1 and len(paths) > 1:
            raise RecipeError(
                "momentum_groups: the paths of a step share one momentum. Leave out the technique "
                "that gives several."
            )
        self._step, self._path = step, paths[0]
        return paths

    def begin_path(self, path: Path, position: int) -> None:
        self._path = path

    def loss(self, compute: Compute, outputs: Tensor, targets: Tensor) -> Tensor:
        plain = compute(outputs, targets)
        self._figures = {"loss": plain.detach()}
        return self.factor(self._path, self._step) * plain

    def factor(self, path: Path, step: int) -> float:
        """Return by what the gradient of a path is multiplied in a step, counted from 0."""
        span = self._largest - self._smallest
        share = (self._size.price(path) - self._smallest) / span if span else 0.5
        exponent: float = self.settings.complexity_decay ** (1 - 2 * share)
        left = max(1, self._num_steps - step) / max(1, self._num_steps)
        return float(left ** (exponent - 1))

    def step_figures(self) -> Mapping[str, Tensor]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {"current": self._current, "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._current, self._momenta = state["current"], dict(state["momenta"])

    def _exchange(self, optimizer: Optimizer) -> None:
        """Give an optimizer the momentum of the path's group, and keep the other one."""
        group = int(np.searchsorted(self._ends, self._size.price(self._path)))
        if group == self._current:
            return
        parameters = [x for given in optimizer.param_groups for x in given["params"]]
        taken = [optimizer.state[x].pop("momentum_buffer", None) for x in parameters]
        self._momenta[self._current], self._current = taken, group
        for parameter, momentum in zip(parameters, self._momenta.pop(group, ()), strict=False):
            if momentum is not None:
                optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
