"""NNI's one-shot strategy with our priors: a path a step, the same one for one (seed, step)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

# NNI's two packages import each other: with oneshot first, nni.nas.strategy would hold stand-ins
# that only fail. Taking the class from where it is defined works in every order.
import nni.nas.strategy  # noqa: F401
from nni.mutable import Sample
from nni.nas.evaluator.pytorch import LightningModule
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, ParametrizedModule
from nni.nas.oneshot.pytorch.sampling import RandomSamplingLightningModule
from nni.nas.oneshot.pytorch.strategy import RandomOneShot, is_supernet
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from torch import nn
from torch.optim import Optimizer

from nni_spos.cost_table import Costs
from nni_spos.errors import RecipeError
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.mutables import SlicedOperation, share_weights
from nni_spos.mutables.repeat import SampledRepeat
from nni_spos.path import Path, PathSpace
from nni_spos.priors import FilteredPrior, Prior, UniformPrior
from nni_spos.supernet.several_paths import SeveralPaths
from nni_spos.training.finite_loss import LossNotFinite
from nni_spos.training.module import TaskModule
from nni_spos.training.sampling import Sampling


def _says_something(record: logging.LogRecord) -> bool:
    return "`training_service` will be ignored" not in str(record.msg)


# NNI warns a dozen times that it ignores an option which it has set itself.
logging.getLogger("nni.nas.experiment.config.experiment").addFilter(_says_something)


class SinglePathModule(RandomSamplingLightningModule):
    """Train one path of the supernet in every step, or several if a technique says so.

    NNI draws paths from generators that nobody seeds, so that no run can be repeated and the
    ranks of a data-parallel job train different paths. Here the path of a step is
    ``prior.path(global_step)``.

    Parameters
    ----------
    training_module
        The evaluator's module with the supernet in it.
    prior
        Where paths come from.
    costs
        Cost tables by metric, for techniques that ask which paths are large.
    accepts
        Whether a path may be trained; None: all may.

    Notes
    -----
    Training techniques may change the prior, and let a step train several paths, see
    `nni_spos.training.technique.Technique.paths`.
    """

    def __init__(
        self,
        training_module: LightningModule,
        prior: Prior,
        costs: Costs | None = None,
        accepts: Callable[[Path], bool] | None = None,
    ):
        super().__init__(training_module)
        if accepts is not None:
            prior = FilteredPrior(prior, accepts)
        self.sampling = Sampling(prior, costs or {}, accepts=accepts)
        self._several = SeveralPaths(self)
        self._units: list[BaseSuperNetModule] = []

    @property
    def prior(self) -> Prior:
        """Where paths come from."""
        return self.sampling.prior

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model)
        self._units = []
        # Lightning keeps the mode, and the space of a converted network begins in evaluation mode.
        self.train()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if isinstance(self.training_module, TaskModule):
            num_steps = int(self.trainer.estimated_stepping_batches)
            sampling = replace(self.sampling, num_steps=num_steps)
            prior = self.training_module.techniques.prior(sampling)
            self.sampling = sampling.replace_prior(prior)

    def paths(self, step: int) -> list[Path]:
        """Return the paths that a step trains, in their order."""
        if isinstance(self.training_module, TaskModule):
            return self.training_module.techniques.paths(self.sampling, step)
        return [self.prior.path(step)]

    def resample(self) -> Sample:
        """Set every unit to the first path of the current step, and return it."""
        return self.use(self.paths(self.trainer.global_step)[0])

    def use(self, path: Path) -> Path:
        """Set every unit to a path, and return it."""
        # Kept: to find them takes a walk through all modules.
        self._units = self._units or choice_units(self)
        set_path(self._units, path)
        return path

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self._several.end()
        # NNI's setup put it there, and it works only as long as this module is trained.
        self.training_module.__dict__.pop("log", None)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        paths = self.paths(self.trainer.global_step)
        try:
            if len(paths) > 1:
                return self._several.train(paths, batch, batch_idx)
            self._several.end()
            self.use(paths[0])
            return self.training_module.training_step(batch, batch_idx)
        except LossNotFinite as problem:
            names = " or ".join(map(str, self.paths(problem.step)))
            raise LossNotFinite(problem.step, f", on the path {names}") from None

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        # Lightning calls it behind the step, which has done it where it leaves gradients.
        if not self._several.has_gradients:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)


class SinglePathOneShot(RandomOneShot):
    """Train a supernet by sampling a single path per step from a prior.

    Use it like NNI's ``RandomOneShot``:
    ``NasExperiment(space, evaluator, SinglePathOneShot(prior)).run()``. It knows the choice units
    of `nni_spos.mutables`.

    Parameters
    ----------
    prior
        Distribution of training paths; by default uniform over the space, with seed 0.
    costs
        Cost tables by metric, for training techniques that ask which paths are large.
    **kwargs
        Passed on to NNI's strategy: ``mutation_hooks``, and ``filter``, a function of a path (or
        NNI's dict of profiler, min and max) that every training path must pass; paths of a
        technique, such as those of a sandwich, are refused if they do not.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.
    """

    def __init__(self, prior: Prior | None = None, *, costs: Costs | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.prior = prior
        self.costs = costs

    def default_mutation_hooks(self) -> list[Any]:
        return [
            _keep_shared,
            _sample_paths,
            SampledRepeat.mutate,
            *super().default_mutation_hooks(),
        ]

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Make a model space a supernet, in place; one that is a supernet stays as it is.

        Choice units and layers whose arguments are choices become others, in place: whoever holds
        one holds the new one, and hooks, ties, loaded weights and ``requires_grad`` stay. Tensors
        that have to grow get the values that the space's constructor draws for the largest
        choices.

        Raises
        ------
        SpaceError
            A tensor that has to grow was changed after the space was built, or is computed from
            others.
        """
        # Layers of a space may share weights already while its choices of layers are as built.
        if is_supernet(model) and not any(type(x) is LayerChoice for x in model.modules()):
            return model
        super().mutate_model(share_weights(model))
        return model

    def configure_oneshot_module(self, training_module: LightningModule) -> SinglePathModule:
        """Wrap the evaluator's module. Raises RecipeError for the prior of another space."""
        space = PathSpace.from_model_space(self.model_space.model_space)
        prior = self.prior or UniformPrior(space)
        if dict(prior.space) != dict(space):
            raise RecipeError("the prior was made for another space than the one to be trained.")
        return SinglePathModule(training_module, prior, self.costs, self.filter)


def _keep_shared(module: nn.Module, *_: Any) -> bool:
    """Keep NNI's hooks from what is as it should be already: a mutation hook."""
    is_done = isinstance(module, SlicedOperation | PathSamplingLayer | SampledRepeat)
    return is_done or (isinstance(module, ParametrizedModule) and not module.mutables)


def _sample_paths(module: nn.Module, *_: Any) -> nn.Module | None:
    """Let a choice unit run the layer of a path, in place: a mutation hook."""
    if type(module) is not LayerChoice:
        return None
    module.__class__ = PathSamplingLayer
    module._sampled = None
    return module
