"""May a stopped or finished NNI experiment go on with what its recipe says today?

A tuner refuses another search than its own. But the manager of a finished experiment is done
before it asks the tuner for anything, and then says so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from nni_spos.costs.stored import load_costs
from nni_spos.errors import ExperimentError
from nni_spos.evolution.journal import read_journal
from nni_spos.experiment.check import TUNER
from nni_spos.experiment.tuner_configuration import load_tuner_recipe
from nni_spos.recipe.output import search_of_experiment
from nni_spos.search.building import fingerprint
from nni_spos.search.kept_supernets import noted_for_experiment
from nni_spos.values import changes


def check_resumable(experiment_id: str, folder: FilePath) -> None:
    """Refuse to resume an experiment whose search would be another one today.

    Parameters
    ----------
    experiment_id
        NNI's id.
    folder
        Of the experiment.

    Raises
    ------
    ExperimentError
        The recipe, its files or the images have changed; one line that says in what.
    SposError
        The recipe or its cost tables cannot be read, or the supernet that was kept is gone.
    """
    tuner = _configuration(experiment_id, folder).get("tuner") or {}
    file = search_of_experiment(folder).journal
    if tuner.get("className") != TUNER or not file.is_file():
        return
    settings, candidates = read_journal(file)
    if not candidates:
        return  # nothing depends on them yet
    recipe = load_tuner_recipe(tuner.get("classArgs") or {}, FilePath(tuner["codeDirectory"]))
    space, costs = load_costs(recipe)
    recipe = noted_for_experiment(recipe, experiment_id) or recipe
    now = json.loads(json.dumps(fingerprint(recipe, space, costs)))
    if found := changes(settings, now):
        raise ExperimentError(
            f"experiment {experiment_id}: cannot be resumed, since {found}. Undo the change, or "
            "start a new experiment: nni-spos start CONFIG."
        )


def _configuration(experiment_id: str, folder: FilePath) -> Mapping[str, Any]:
    """Return the configuration that NNI's manager has recorded; empty if it has none."""
    from nni.tools.nnictl.config_utils import Config  # takes more than a second

    try:
        found = Config(experiment_id, str(folder.parent)).get_config()
    except (sqlite3.Error, TypeError, ValueError):
        return {}  # nnictl says what is wrong with it
    return found if isinstance(found, Mapping) else {}
