"""The command that NNI runs for every candidate, as a configuration has it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any


def recipe_of_trials(config: Mapping[str, Any]) -> str | None:
    """Return the recipe's name as the trials of a configuration get it, see `trial_recipe`."""
    service = config["trainingService"]
    return trial_recipe(service.get("trialCommand") or config["trialCommand"])


def trial_recipe(command: str) -> str | None:
    """Return the recipe in ``nni-spos trial RECIPE``, or None for another command.

    >>> trial_recipe("OMP_NUM_THREADS=1 nni-spos trial --quiet digits.yml")
    'digits.yml'
    >>> trial_recipe("python3 -m nni_spos.cli trial digits.yml")
    'digits.yml'
    >>> trial_recipe("python3 my_trial.py")
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    for i, word in enumerate(words[:-1]):
        is_ours = os.path.basename(word) == "nni-spos" or word in ("nni_spos", "nni_spos.cli")
        if is_ours and words[i + 1] == "trial":
            arguments = [word for word in words[i + 2 :] if not word.startswith("-")]
            return arguments[0] if arguments else None
    return None
