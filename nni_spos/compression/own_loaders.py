"""Make a network of one's own smaller in Python, with loaders of one's own."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.evaluator.pytorch import Lightning, LightningModule
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn

from nni_spos.compression.own_training import (
    FirstBatch,
    calibration_of,
    evaluator_of,
    look_at_loaders,
    read_trainings,
    task_of,
)
from nni_spos.compression.tables import compared
from nni_spos.conversion.choices import largest
from nni_spos.conversion.convert import convert
from nni_spos.conversion.plan import ConversionPlan
from nni_spos.conversion.space import ConvertedSpace
from nni_spos.cost_table import Costs
from nni_spos.display.tables import LEFT, RIGHT, as_text
from nni_spos.evolution import Search
from nni_spos.mutables import channel_labels
from nni_spos.path import Path, PathSpace
from nni_spos.priors import WarmUpPrior
from nni_spos.priors.building import build_prior
from nni_spos.profilers import build_costs
from nni_spos.recipe.conversion_settings import SEARCH_DEFAULTS, ChoiceSettings
from nni_spos.recipe.search_settings import EvaluationSettings, SearchSettings
from nni_spos.recipe.training_settings import RetrainSettings, SupernetSettings, TrainSettings
from nni_spos.scoring.scoring_format import can_be_channels_last
from nni_spos.search.building import build_search
from nni_spos.search.lightning_scorer import LightningScorer, own_generators, seeded
from nni_spos.search.own_scores import search_paths
from nni_spos.supernet.strategy import SinglePathOneShot
from nni_spos.supernet.training import begin_quantizing
from nni_spos.tasks.base import Task, plain_figure
from nni_spos.tasks.classification import Classification
from nni_spos.training import threads_for, training_session

TOP1 = Classification().objective


@dataclass(frozen=True, repr=False)
class Compressed:
    """A network that became smaller; ``print`` shows it beside the original.

    Parameters
    ----------
    network
        The fine-tuned network of the best path, on the CPU and in evaluation mode.
    path
        That path: label to choice.
    costs, original_costs
        Of both networks by metric: ``flops`` are multiply-adds for one image.
    scores, original_scores
        What ``validation_step`` logs for both networks, by name.
    split
        What the scores are of: "test" if there was a loader of test batches, else "validation".
    plan
        What of the network could be chosen.
    search
        The finished search, with all candidates.
    task
        Says how scores are shown; None: they are those of a module of one's own.
    """

    network: nn.Module
    path: Path
    costs: Mapping[str, float]
    original_costs: Mapping[str, float]
    scores: Mapping[str, float]
    original_scores: Mapping[str, float]
    split: str
    plan: ConversionPlan
    search: Search
    task: Task | None

    def __repr__(self) -> str:
        whole = largest(self.plan)
        changed = [label for label, choice in self.path.items() if choice != whole[label]]
        figure = plain_figure if self.task is None else self.task.figure
        table = compared(
            (self.original_costs, self.costs),
            (self.original_scores, self.scores),
            [figure(name) for name in self.scores],
            self.split,
        )
        units = f"{len(changed)} of {len(self.path)} units became smaller"
        return f"{as_text(table, [LEFT, RIGHT, RIGHT, RIGHT])}\n{units}"


def compress(
    network: nn.Module,
    train_loader: Iterable[Any],
    validation_loader: Iterable[Any],
    constraints: Sequence[str],
    *,
    supernet: Mapping[str, Any],
    retrain: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    choices: Mapping[str, Any] | ChoiceSettings | None = None,
    ignore: Sequence[str] = (),
    module: LightningModule | None = None,
    objective: str = TOP1,
    test_loader: Iterable[Any] | None = None,
    example_inputs: Tensor | None = None,
    recalibration_images: int = EvaluationSettings.recalibration_images,
    seed: int = 0,
    progress: bool = True,
) -> Compressed:
    """Convert a trained network, train it as a supernet, search it, and fine-tune the best path.

    The same as ``nni-spos compress`` does for a recipe, with its defaults, but nothing is written
    to the disk: it does not go on after it was cut off.

    Parameters
    ----------
    network
        Trained, in evaluation mode, of one tensor. It is not changed.
    train_loader, validation_loader
        Loaders of batches. Without `module` a batch is (images, classes): tensors of shape
        (N, C, H, W) and (N,). The validation batches score the candidates.
    constraints
        Limits such as "flops <= 50%", a share of what the network costs, or "params <= 2M".
    supernet
        Keys of a recipe's section ``supernet``, such as ``{"epochs": 10}``; 0 epochs search in the
        weights that the network has. Batches are those of the loaders.
    retrain
        Keys of the section ``retrain``, for fine-tuning; by default as `supernet`. With 0 epochs
        the network is as the supernet has it.
    search
        Keys of the section ``search``, such as ``{"population_size": 20}``.
    choices, ignore
        What may be chosen, see `nni_spos.convert`. ``importance: taylor`` sorts channels by the
        first training batches, and needs the loss, so there may be no `module`.
    module
        A Lightning module of NNI's class that trains and scores ``self.model``; None: a
        classification, trained as a recipe's. It is copied, not changed.
    objective
        What ``validation_step`` logs that is to be as high as possible.
    test_loader
        Batches for the scores of the result and of the original, which the search has not seen; by
        default the validation batches.
    example_inputs
        Images of shape (N, C, H, W) on the network's device; by default those of a batch.
    recalibration_images
        How many training images give BatchNorm's statistics of a candidate, in whole batches; 0: it
        has those of the supernet.
    seed
        Of all stages, unless a section says otherwise.
    progress
        Whether to show progress bars on standard error.

    Raises
    ------
    SpaceError
        The network cannot be converted, e.g. since it is in training mode.
    ConstraintError, InfeasibleError
        No path keeps the limits; said before any training.
    RecipeError
        A key or a value of a section is not allowed.
    DataError, EvaluatorError
        A loader is empty or no loader, its batches do not fit, or `module` cannot be used.
    SearchError
        All candidates of the first generation failed.

    Examples
    --------
    ``found = compress(network, train_loader, validation_loader, ["flops <= 50%"],
    supernet={"epochs": 5}, retrain={"epochs": 10})``, then ``print(found)`` and ``found.network``.
    """
    trainings = read_trainings(supernet, retrain, seed, module)
    wanted = {"seed": seed, "constraints": list(constraints), "objective": objective}
    changes = {**SEARCH_DEFAULTS, **wanted, **(search or {})}
    settings = SearchSettings().changed(changes, "compress: search")
    loaders = {
        "train_loader": train_loader,
        "validation_loader": validation_loader,
        "test_loader": test_loader,
    }
    device = next((x.device for x in network.parameters()), "cpu")
    with seeded(own_generators(list(loaders.values())), seed, device):
        first = look_at_loaders(network, loaders, example_inputs, module)
        calibration = calibration_of(choices, train_loader, first, module)
        space = convert(network, first.images, choices, ignore=ignore, calibration=calibration)
        path_space = PathSpace.from_model_space(space)
        costs = build_costs(space, first.images.shape[1:])
        build_search(settings, path_space, costs)  # refuses limits that no path keeps
        stages = _CompressionStages(
            module, train_loader, validation_loader, costs, first, seed, progress
        )
        stages.train(space, trainings.supernet)
        stages.lay_out(space)
        scorer = stages.scorer(space, objective, recalibration_images)
        found = search_paths(path_space, scorer, costs, settings=settings, progress=progress)
        path: Path = dict(found.best.path)
        smaller = stages.finetune(scorer.network(path), trainings.finetune, path)
        if test_loader is not None:
            stages = dataclasses.replace(stages, validation_loader=test_loader)
        final = stages.scorer(space, objective, recalibration_images)
        whole = largest(space.plan)
        return Compressed(
            network=smaller,
            path=path,
            costs={name: table.price(path) for name, table in costs.items()},
            original_costs={name: table.price(whole) for name, table in costs.items()},
            scores=final.score(copy.deepcopy(smaller)),
            original_scores=final.score(copy.deepcopy(network)),
            split="validation" if test_loader is None else "test",
            plan=space.plan,
            search=found,
            task=task_of(module),
        )


@dataclass(frozen=True)
class _CompressionStages:
    """What the stages have in common."""

    module: LightningModule | None
    train_loader: Iterable[Any]
    validation_loader: Iterable[Any]
    costs: Costs
    first: FirstBatch
    seed: int
    progress: bool

    def train(self, space: ConvertedSpace, settings: SupernetSettings) -> None:
        """Make a space a supernet, and train it."""
        path_space = PathSpace.from_model_space(space)
        prior = build_prior(settings, path_space, self.costs)
        strategy = SinglePathOneShot(prior, costs=self.costs)
        supernet = strategy.mutate_model(space)
        if settings.channel_warmup_steps:
            labels = channel_labels(supernet)
            strategy.prior = WarmUpPrior(prior, labels, settings.channel_warmup_steps)
        if settings.epochs == 0:
            begin_quantizing(supernet, self.costs, self.first.images)
            return
        evaluator = self._evaluator(settings, "supernet")
        _, path = self.costs["flops"].dearest()
        with self._training(settings, path):
            strategy(
                RawFormatModelSpace.from_model(supernet, evaluator), SequentialExecutionEngine()
            )

    def lay_out(self, space: ConvertedSpace) -> None:
        """Let a supernet lie in memory as it is scored fastest; a module of one's own may mind."""
        if self.module is None and can_be_channels_last(space, self.first.images.shape[1:]):
            space.to(memory_format=torch.channels_last)

    def scorer(self, space: ConvertedSpace, objective: str, num_images: int) -> LightningScorer:
        """Return what scores paths, and any network, on the validation batches."""
        return LightningScorer(
            space,
            self._evaluator(SupernetSettings(epochs=1), None),
            objective,
            recalibration_batches=math.ceil(num_images / self.first.size),
            seed=self.seed,
        )

    def finetune(
        self, network: nn.Module, settings: RetrainSettings | None, path: Path
    ) -> nn.Module:
        """Train the network of a path, and return what is of the user's class."""
        if settings is not None:
            with self._training(settings, path):
                self._evaluator(settings, "finetune").evaluate(network)
        smaller: nn.Module = network.network.cpu().eval()
        return smaller.to(memory_format=torch.contiguous_format)

    def _evaluator(self, settings: TrainSettings, title: str | None) -> Lightning:
        shown = title if self.progress else None
        loaders = self.train_loader, self.validation_loader
        return evaluator_of(settings, self.module, *loaders, shown)

    @contextlib.contextmanager
    def _training(self, settings: TrainSettings, path: Path) -> Iterator[None]:
        """Let a training depend on nothing that was drawn before it."""
        multiply_adds = self.costs["flops"].price(path)
        loaders = self.train_loader, self.validation_loader
        with (
            seeded(own_generators(loaders), settings.seed, self.first.images.device),
            training_session(),
            threads_for(multiply_adds, self.first.size),
        ):
            yield
