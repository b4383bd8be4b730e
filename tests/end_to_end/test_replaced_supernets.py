"""A supernet that is trained anew, deleted or broken while the real NNI searches."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch
import yaml
from waiting import PATIENCE, wait_until

from nni_spos.data import open_data
from nni_spos.errors import ExperimentError
from nni_spos.experiment.start import ManagerOptions, resume, start
from nni_spos.files.tensors import save_tensors
from nni_spos.recipe.identity import WEIGHTS, Result, describe
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search
from nni_spos.spaces import Form
from nni_spos.supernet import load_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_space
from nni_spos.supernet.training import ensure_supernet

pytestmark = pytest.mark.nni

RUN = """
import sys
from nni_spos.experiment.start import ManagerOptions, start
print(start(sys.argv[1], ManagerOptions(port=int(sys.argv[2])), report=lambda line: None).status)
"""


@pytest.fixture
def recipe(study, one_thread):
    recipe = study.copy_examples(
        supernet={"epochs": 1},
        search={"population_size": 3, "num_generations": 3, "top_k": 2},
        evaluation={"cache": False},
    )
    ensure_supernet(recipe)
    return recipe


@pytest.fixture
def config(study):
    return study.folder / "examples" / "spos.yml"


def put_weights(recipe):
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=5)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)


def found(results):
    names = ("top1", "top5", "loss")
    return [(x.path, [x.metrics[name] for name in names]) for x in results.candidates]


def num_outcomes(study):
    journals = list(study.folder.glob("nni-experiments/*/checkpoint/search.jsonl"))
    return sum(x.read_text().count('"number"') for x in journals)


@pytest.mark.parametrize("then", ["goes on", "is stopped and resumed"])
def test_a_search_keeps_its_supernet(study, recipe, config, then):
    expected = found(run_search(recipe, progress=False, folder="reference"))
    weights = describe(Result.SCORES, recipe)[WEIGHTS]
    command = [sys.executable, "-c", RUN, str(config), str(study.port)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: num_outcomes(study) >= 1 or running.poll() is not None)
    assert running.poll() is None, running.communicate()
    if then == "goes on":
        put_weights(recipe)
        output, errors = running.communicate(timeout=PATIENCE)
        assert output == "DONE\n", errors
    else:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=PATIENCE)
        put_weights(recipe)
    folders = study.folder.glob("nni-experiments/*/checkpoint")
    (experiment,) = (x for x in folders if x.parent.name != "_latest")
    experiment_id = experiment.parent.name
    if then != "goes on":
        assert (
            resume(experiment_id, ManagerOptions(port=study.port), report=lambda line: None).status
            == "DONE"
        )
    results = load_results(experiment_id)
    assert found(results) == expected
    assert results.settings[WEIGHTS] == weights != describe(Result.SCORES, recipe)[WEIGHTS]
    assert study.processes() == []

    if then == "goes on":
        start_anew(recipe, config, study.port, expected)
    else:
        resume_the_finished(recipe, experiment_id, study.port)
    assert study.processes() == []


def start_anew(recipe, config, port, before):
    """A new experiment has the new supernet."""
    results = start(config, ManagerOptions(port=port), report=lambda line: None).results
    assert found(results) != before
    assert results.settings[WEIGHTS] == describe(Result.SCORES, recipe)[WEIGHTS]


def resume_the_finished(recipe, experiment_id, port):
    """It is resumed as what it was, or not at all."""
    text = recipe.file.read_text()
    content = yaml.safe_load(text)
    content["search"]["seed"] = 77
    recipe.file.write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=r"seed was 0 and now is 77") as refused:
        resume(experiment_id, ManagerOptions(port=port), report=lambda line: None)
    assert "\n" not in str(refused.value)
    recipe.file.write_text(text)
    options = ManagerOptions(port=port)
    assert resume(experiment_id, options, report=lambda line: None).status == "DONE"


def test_a_supernet_that_is_not_finite_ends_in_an_error(study, recipe, config):
    checkpoint = load_supernet(recipe.checkpoint)
    content = {
        "supernet_version": 1,
        "space": checkpoint.space.to_search_space(),
        "weights": {
            name: torch.full_like(x, torch.nan) if x.is_floating_point() else x
            for name, x in checkpoint.weights.items()
        },
        "preprocessing": dict(checkpoint.preprocessing),
        "made_for": dict(checkpoint.made_for),
    }
    save_tensors(recipe.checkpoint, content)
    with pytest.raises(ExperimentError, match=r"failed, and not for its path: .*is not finite"):
        start(config, ManagerOptions(port=study.port), report=lambda line: None)
    assert study.processes() == []
