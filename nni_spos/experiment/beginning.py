"""What an experiment's search begins with, found beside NNI before the first trial."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import time
from typing import Any

from nni_spos.errors import ExperimentError, SposError
from nni_spos.path import Path
from nni_spos.process.nni_processes import end_with_manager
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import Recipe
from nni_spos.search.first_paths import read_first_paths
from nni_spos.search.running import prepare_first_paths

_logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the manager."""


class Beginning:
    """Tries the single choices of a converted network, in a process of its own.

    That takes minutes, PyTorch and perhaps a GPU, which a tuner has no use for, and which the
    trials have when it is over. What an earlier run of the experiment found is taken from the
    folder.

    Parameters
    ----------
    recipe
        Of the experiment; its supernet is there.
    folder
        Of the search.
    depends_on
        What the paths follow from, see `nni_spos.search.first_paths.kept_first_paths`.
    """

    def __init__(self, recipe: Recipe, folder: SearchFolder, depends_on: Any):
        self._folder, self._depends_on = folder, depends_on
        self._begin = time.monotonic()
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._problems = context.SimpleQueue()
        arguments = (recipe, folder, depends_on, self._problems)
        self._process = context.Process(target=_prepare, args=arguments, daemon=True)
        self._process.start()
        _logger.info("sensitivity: tries each choice alone; trials begin after that")

    @property
    def is_over(self) -> bool:
        """Whether `paths` returns at once."""
        return not self._process.is_alive()

    def paths(self) -> list[Path]:
        """Return the paths to begin with, when it is over.

        Raises
        ------
        ExperimentError
            They could not be found; the message says why.
        """
        self._process.join()
        seconds = time.monotonic() - self._begin
        if self._process.exitcode:
            code = f"its process ended with {self._process.exitcode}."
            raise ExperimentError(code if self._problems.empty() else self._problems.get())
        paths = read_first_paths(self._folder.first_paths, self._depends_on) or []
        _logger.info("sensitivity: %d paths to begin with, in %.0f s", len(paths), seconds)
        return paths


def _prepare(recipe: Recipe, folder: SearchFolder, depends_on: Any, problems: Any) -> None:
    """Find the paths on one device: processes on others would outlive this one if it is ended."""
    end_with_manager(INTERVAL)
    evaluation = dataclasses.replace(recipe.evaluation, devices=1)
    recipe = dataclasses.replace(recipe, evaluation=evaluation)
    try:
        prepare_first_paths(recipe, folder, depends_on)
    except SposError as problem:
        problems.put(str(problem))
        raise SystemExit(1) from None
