"""Score paths with a user's own Lightning module and loaders: any task, any form of batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.nn.pytorch import ModelSpace
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from nni_spos.errors import EvaluatorError, unknown
from nni_spos.modules.memory_format import kept_generators, seed_generators
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Choice
from nni_spos.scoring.recalibration import gathering_statistics
from nni_spos.training.quiet import quiet


class LightningScorer:
    """Score paths with a supernet's weights, by the ``validation_step`` of a Lightning module.

    A path's network is a copy, so that the supernet stays as it is. Its BatchNorm statistics are
    made anew from training batches before it is scored, since those of a supernet are of all paths
    together (paper: section 3.4). Each path sees the same batches in the same order.

    Paths are scored one by one: what they could share is known of networks that are called with
    images alone, see `nni_spos.supernet.evaluate_paths`.

    Parameters
    ----------
    supernet
        A model space with trained weights.
    evaluator
        NNI's, as the supernet was trained with: its module, its loaders or data module, and device
        and precision of its trainer are used; the module keeps its network.
    objective
        Name of a value that ``validation_step`` logs, which a search is to raise.
    recalibration_batches
        How many training batches give the statistics of a path; 0: it has those of the supernet.
        The paper takes 20,000 images.
    seed
        Of the order of the training batches, and of what the loaders draw.

    Raises
    ------
    EvaluatorError
        There are no batches to validate with, or to recalibrate with, or the module has no
        ``validation_step``.

    Examples
    --------
    ``scorer = LightningScorer(space, evaluator, "val_acc")``, then ``scorer(path)["val_acc"]`` for
    the figures of a path and ``scorer.network(path)`` for its network.
    """

    def __init__(
        self,
        supernet: ModelSpace,
        evaluator: Lightning,
        objective: str,
        *,
        recalibration_batches: int = 100,
        seed: int = 0,
    ):
        if not isinstance(evaluator, Lightning):
            raise EvaluatorError(
                f"a {type(evaluator).__name__} cannot score. Give NNI's evaluator: Lightning("
                "module, Trainer(), train_loader, validation_loader)."
            )
        self.supernet = supernet
        self.evaluator = evaluator
        self.objective = objective
        self.recalibration_batches = recalibration_batches
        self.seed = seed
        if type(evaluator.module).validation_step is LightningModule.validation_step:
            raise EvaluatorError(
                f"{type(evaluator.module).__name__} has no validation_step, which scores paths. "
                f"Let it log {objective!r} there."
            )
        self._training, self._validation = _loaders(evaluator)
        self._generators = own_generators([self._training, self._validation])
        if not self._validation:
            raise EvaluatorError(
                "there is nothing to validate with. Give the evaluator val_dataloaders, or a data "
                "module that has them."
            )
        if recalibration_batches and not self._training:
            raise EvaluatorError(
                "there is nothing to recalibrate BatchNorm with. Give the evaluator "
                "train_dataloaders, or write recalibration_batches=0."
            )

    def __call__(self, path: Mapping[str, Choice]) -> dict[str, float]:
        """Return what ``validation_step`` logs for a path: name to value, the objective among them.

        Raises
        ------
        PathError
            The path is not one of the space.
        EvaluatorError
            The objective is not logged.
        """
        return self.score(self.network(path))

    def score(self, network: nn.Module) -> dict[str, float]:
        """Return what ``validation_step`` logs for any network, as it is.

        Raises EvaluatorError if the objective is not logged.
        """
        with self._placed(network):
            found = self._validate(self._validation, 1.0, [])
        if self.objective not in found:
            raise EvaluatorError(
                f"{type(self.evaluator.module).__name__}.validation_step: "
                f"{unknown('logged value', self.objective, found)}"
            )
        return found

    def network(self, path: Mapping[str, Choice]) -> nn.Module:
        """Return the network of a path with the supernet's weights and statistics of its own.

        Raises PathError.
        """
        network = extract_subnet(self.supernet, path).eval()
        if self.recalibration_batches:
            with self._placed(network), gathering_statistics(network) as norms:
                if norms:
                    self._validate(self._training, self.recalibration_batches, [_Gathering(norms)])
        return network

    @contextlib.contextmanager
    def _placed(self, network: nn.Module) -> Iterator[None]:
        """Let the module have a network, with the same random numbers for each."""
        module = self.evaluator.module
        before, trainer = getattr(module, "_model", None), module._trainer
        vars(module).pop("log", None)  # that of NNI's one-shot module, which has been trained
        with seeded(self._generators, self.seed, self._device):
            module.set_model(network)
            try:
                yield
            finally:
                module._model, module._trainer = before, trainer

    @property
    def _device(self) -> torch.device:
        return self.evaluator.trainer.strategy.root_device

    def _validate(
        self, loaders: Any, limit: int | float, callbacks: Sequence[Callback]
    ) -> dict[str, float]:
        """Run ``validation_step`` on batches, and return what it logs."""
        device, precision = self._device, self.evaluator.trainer.precision
        with quiet():
            trainer = Trainer(
                accelerator=device.type,
                devices=1 if device.index is None else [device.index],
                precision=precision,
                limit_val_batches=limit,
                callbacks=list(callbacks),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.validate(self.evaluator.module, loaders, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}


class _Gathering(Callback):
    """Lets BatchNorm layers gather statistics while Lightning validates."""

    def __init__(self, norms: Sequence[_BatchNorm]):
        self._norms = norms

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for norm in self._norms:  # Lightning has just put all in evaluation mode
            norm.train()


def _loaders(evaluator: Lightning) -> tuple[Any, Any]:
    """Return loaders of training and of validation batches, None where there are none."""
    source = evaluator.datamodule
    if source is not None:
        source.prepare_data()
        source.setup("fit")
        return source.train_dataloader(), source.val_dataloader()
    return evaluator.train_dataloaders, evaluator.val_dataloaders


@contextlib.contextmanager
def seeded(
    generators: Iterable[torch.Generator], seed: int, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Let all that is drawn follow from a seed; the caller's global generators stay as they are.

    Parameters
    ----------
    generators
        Those that loaders have of their own, see `own_generators`; they begin anew.
    seed
        Of these and of the global ones.
    device
        Whose global generator is one of these.
    """
    with kept_generators(device):
        seed_generators(seed, device)
        for generator in generators:
            generator.manual_seed(seed)
        yield


def own_generators(loaders: Any) -> list[torch.Generator]:
    """Return the generators that loaders, in any nesting, draw from instead of PyTorch's own."""
    owners = [part for x in tree_leaves(loaders) for part in (x, getattr(x, "sampler", None))]
    found = (getattr(owner, "generator", None) for owner in owners)
    return [x for x in found if isinstance(x, torch.Generator)]
