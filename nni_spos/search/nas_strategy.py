"""The search as a strategy of NNI's NAS API, for experiments in one process.

A user's own script keeps NNI's interface::

    config = NasExperimentConfig("sequential", "raw")
    strategy = EvolutionStrategy(build_costs(space, (3, 224, 224)), constraints=["flops <= 330M"])
    experiment = NasExperiment(supernet, SupernetEvaluator(supernet, data), strategy, config)
    experiment.run()
    experiment.export_top_models(3, formatter="dict")
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import nni
import torch
from nni.nas.evaluator import Evaluator
from nni.nas.execution import (
    ExecutionEngine,
    FinalMetricEvent,
    Middleware,
    TrainingServiceExecutionEngine,
)
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import ExecutableModelSpace, ModelStatus
from nni.nas.strategy import Strategy
from torch import nn

from nni_spos.cost_table import Costs
from nni_spos.data import ImageData
from nni_spos.errors import (
    CostError,
    EvaluatorError,
    ExperimentError,
    RecipeError,
    SearchError,
)
from nni_spos.evolution import Candidate, Search, State
from nni_spos.files.digests import DIGITS
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe.search_settings import EvaluationSettings, SearchSettings
from nni_spos.recipe.task import find_task
from nni_spos.scoring.failures import is_of_the_path, is_out_of_memory, raise_if_cuda_is_lost
from nni_spos.search.building import build_search
from nni_spos.search.evaluating import ask_all, tell_result
from nni_spos.search.nni_results import RESULT, from_nni, to_nni
from nni_spos.search.scorer import PathScorer

_logger = logging.getLogger(__name__)
VERSION = 1

STATE = ("version", "space", "settings", "scorer")
"""Parts of a saved state that must be those of the search that is to go on."""

ONE_PROCESS = (
    "works in one process only: use NasExperimentConfig('sequential', 'raw'), or start trials in "
    "processes of their own with 'nni-spos start CONFIG'."
)


class SupernetEvaluator(Evaluator):
    """Score the paths of an NNI experiment with the weights of one supernet.

    Works with every multi-trial strategy of NNI and with the model formats ``raw`` and
    ``simplified``: only the path of a model is used, never a network that NNI makes of it.

    Parameters
    ----------
    supernet
        A model space with trained weights, on the device to score on; it is not changed.
    data
        Training images for recalibration, validation images for the score, as `open_data` returns
        them. Or a scorer of your own: a `LightningScorer`, or any function of a path.
    settings
        How to score, see `nni_spos.supernet.evaluate_path`; not for a scorer of your own.
    channels_last
        Memory format of the images; fastest if the supernet's weights have the same.

    Raises
    ------
    EvaluatorError
        `data` is neither.

    Attributes
    ----------
    trouble : Exception or None
        Why the last path has no result, if that is not what the path does.
    """

    trouble: Exception | None = None

    def __init__(
        self,
        supernet: ModelSpace,
        data: ImageData | Callable[[Path], Mapping[str, float]],
        settings: EvaluationSettings | None = None,
        channels_last: bool = True,
    ):
        self._supernet = supernet
        if isinstance(data, ImageData):
            self._scorer: Any = PathScorer(supernet, data, settings, channels_last)
        elif callable(data):
            self._scorer = data
        else:
            raise EvaluatorError(
                f"a {type(data).__name__} cannot score paths. Give what open_data() returns; or, "
                "for loaders of your own, LightningScorer(supernet, Lightning(module, Trainer(), "
                "train_loader, validation_loader), objective)."
            )
        self._prepared: list[tuple[Path, dict[str, float]]] = []

    @property
    def objective(self) -> str:
        """Name of the result that is reported to NNI: that of the scorer, or of the data's task."""
        if isinstance(self._scorer, PathScorer):
            return self._scorer.data.task.objective
        return str(getattr(self._scorer, "objective", RESULT))

    @property
    def identity(self) -> dict[str, Any]:
        """What the scores depend on, beside the code and the images: weights and settings."""
        weights = {"weights": digest_tensors(self._supernet)}
        if not isinstance(self._scorer, PathScorer):
            return weights
        return {
            **weights,
            "evaluation": self._scorer.settings.deciding(),
            "preprocessing": self._scorer.data.preprocessing,
        }

    def prepare(self, paths: Sequence[Path]) -> None:
        """Score paths together, which is faster, for when each will be asked for.

        What cannot be scored together is scored when it is asked for.
        """
        if not hasattr(self._scorer, "score_many"):
            return
        try:
            results = self._scorer.score_many(paths)
        except Exception as problem:
            raise_if_cuda_is_lost(problem)
            if not (is_of_the_path(problem) or is_out_of_memory(problem)):
                raise
            results = []
        self._prepared = [(dict(path), found) for path, found in zip(paths, results, strict=False)]

    def evaluate(self, model: Mapping[str, Choice]) -> Mapping[str, float]:
        """Return the results of a path, see `Scorer.score_many`. Raises PathError."""
        prepared = (found for path, found in self._prepared if path == dict(model))
        self.trouble = None
        try:
            found = next(prepared, None) or self._scorer(model)
        except Exception as problem:
            if not is_of_the_path(problem):
                self.trouble = problem
            raise
        return found if isinstance(found, Mapping) else {self.objective: found}

    def _execute(self, model: ExecutableModelSpace) -> Mapping[str, float]:
        # NNI would first make a network: of the raw format one that shares the supernet's
        # weights, which recalibration must not touch, of the simplified format one without them.
        assert model.sample is not None, "an engine executes frozen models"
        results = self.evaluate(model.sample)
        nni.report_final_result(to_nni(results, self.objective))
        return results

    def _dump(self) -> NoReturn:
        raise ExperimentError(f"SupernetEvaluator {ONE_PROCESS}")


class EvolutionStrategy(Strategy):
    """Explore a space by evolution (or NSGA-II, or at random) under hard constraints.

    The same search as that of the tuner and of ``nni-spos search``, for NNI's ``NasExperiment``
    with the execution engine ``sequential``, which runs everything in this process. NNI saves the
    state when the experiment stops, also by an interrupt, and loads it with ``resume``.

    The number that an evaluator reports to NNI, or ``default`` of a mapping, counts as the
    objective of the task: ``top1`` of a classification.
    With NNI's ``continue_on_failure`` a path whose evaluation fails is excluded, else NNI ends
    the experiment with the error.

    Parameters
    ----------
    costs
        Cost tables of the space, e.g. from `nni_spos.profilers.build_costs`. May be left out
        without constraints.
    settings
        The search; by default that of the paper.
    **changes
        Keys of `nni_spos.recipe.SearchSettings` that replace those of `settings`, as a recipe has
        them: ``algorithm="random"``, ``constraints=["flops <= 330M"]``.

    Raises
    ------
    RecipeError
        An unknown key or a wrong value.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, Algorithm 1.
    """

    def __init__(
        self,
        costs: Costs | None = None,
        settings: SearchSettings | None = None,
        **changes: Any,
    ):
        super().__init__()
        self.costs = dict(costs or {})
        self.settings = _changed(settings or SearchSettings(), changes)
        self._search: Search | None = None
        self._outcomes: list[tuple[Path, Mapping[str, Any] | str]] = []
        self._reported: Any = None
        self._scorer_identity: dict[str, Any] | None = None

    @property
    def search(self) -> Search:
        """The search, with all candidates so far. Raises ExperimentError before there is one."""
        if self._search is None:
            raise ExperimentError("the strategy has no search space yet: run it first.")
        return self._search

    def list_models(
        self, sort: bool = True, limit: int | None = None
    ) -> Iterator[ExecutableModelSpace]:
        """List the evaluated models, those of an earlier run that was resumed included.

        Parameters
        ----------
        sort
            The finished ones only, best first; else all in the order of proposal.
        limit
            How many at most.

        Notes
        -----
        NNI's ``export_top_models(formatter="instance")`` makes networks that share the weights of
        a supernet in raw format; `nni_spos.supernet.extract_subnet` makes one of its own.
        """
        ended = [c for c in self.search.candidates if c.state is not State.PENDING]
        candidates = self.search.top(len(ended)) if sort else ended
        yield from map(self._as_model, candidates[:limit])

    def state_dict(self) -> dict[str, Any]:
        """Return space, settings and all outcomes, as plain values."""
        return {
            "version": VERSION,
            "space": self._search and self._search.space.to_search_space(),
            "settings": self.settings.deciding(),
            "scorer": self._scorer_identity,
            "outcomes": list(self._outcomes),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with another strategy's search, after `initialize` and before `run`.

        Raises
        ------
        SearchError
            It has another space, other settings, or results of another supernet.
        """
        own = self.state_dict()
        wrong = [key for key in STATE if state_dict.get(key) != own[key]]
        if wrong:
            raise SearchError(
                f"the saved state belongs to another search ({', '.join(wrong)} differ). Restore "
                "them to resume, or start a new experiment."
            )
        self._outcomes = list(state_dict["outcomes"])
        for path, outcome in self._outcomes:
            self.search.remember(path, outcome)

    def extra_repr(self) -> str:
        return f"settings={self.settings}"

    def _initialize(
        self, model_space: ExecutableModelSpace, engine: ExecutionEngine
    ) -> ExecutableModelSpace:
        inner = engine
        while isinstance(inner, Middleware):
            inner = inner.engine
        if isinstance(inner, TrainingServiceExecutionEngine):
            raise ExperimentError(f"EvolutionStrategy {ONE_PROCESS}")
        space = PathSpace.from_model_space(model_space)
        wrong = [metric for metric, table in self.costs.items() if table.space != space]
        if wrong:
            raise CostError(
                f"cost table {wrong[0]}: was made for another space than the experiment's."
            )
        if self.settings.sensitivity:
            raise RecipeError(
                "EvolutionStrategy: leave out 'sensitivity': single choices are tried by "
                "nni_spos.search_paths, nni-spos search and compress."
            )
        self._search = build_search(self.settings, space, self.costs)
        if isinstance(model_space.evaluator, SupernetEvaluator):
            self._scorer_identity = model_space.evaluator.identity
        return model_space

    def _run(self) -> None:
        self.engine.register_model_event_callback("final_metric", self._keep)
        try:
            while paths := ask_all(self.search):
                evaluator = self.model_space.evaluator
                if isinstance(evaluator, SupernetEvaluator):
                    evaluator.prepare(paths)
                for path in paths:
                    if not self.wait_for_resource():
                        _logger.warning(
                            "The experiment's budget is spent before the search is over."
                        )
                        return
                    model = self.model_space.freeze(path)
                    self.engine.submit_models(model)  # returns when the model is evaluated
                    candidate = self._tell(path, model)
                    self._outcomes.append((path, candidate.reason or candidate.metrics))
        finally:
            self.engine.unregister_model_event_callback("final_metric", self._keep)

    def _keep(self, event: FinalMetricEvent) -> None:
        """Keep all results of a model; NNI itself keeps one number."""
        self._reported = event.metric

    def _tell(self, path: Path, model: ExecutableModelSpace) -> Candidate:
        """Tell the search what became of a path."""
        reported, self._reported = self._reported, None
        evaluator = self.model_space.evaluator
        if isinstance(evaluator, SupernetEvaluator) and evaluator.trouble is not None:
            raise evaluator.trouble  # it fails no path, also if NNI is to go on after failures
        if model.status is not ModelStatus.Trained or reported is None:
            reason = f"the evaluation ended as '{model.status.value}' without a result"
            _logger.warning("%s: %s", reason, path)
            return self.search.tell_failure(path, reason)
        return tell_result(self.search, path, from_nni(reported, self._result_name(evaluator)))

    def _result_name(self, evaluator: Any) -> str:
        """Return what the number is called that an evaluator reports to NNI."""
        if isinstance(evaluator, SupernetEvaluator):
            return evaluator.objective
        return find_task(self.settings.task).objective

    def _as_model(self, candidate: Candidate) -> ExecutableModelSpace:
        model = self.model_space.freeze(candidate.path)
        model.status = ModelStatus.Failed
        if candidate.state is State.DONE:
            model.status = ModelStatus.Trained
            model.metrics.final = candidate.metrics[self.search.objective]
        return model


def digest_tensors(network: nn.Module) -> str:
    """Return what stands for the values of all weights and statistics."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _changed(settings: SearchSettings, changes: Mapping[str, Any]) -> SearchSettings:
    return settings.changed(changes, EvolutionStrategy.__name__)
