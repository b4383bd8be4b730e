"""examples/remote.yml over ssh, with two 'machines' on this one that have different homes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from machines import running_machines
from waiting import wait_until

from nni_spos.data import open_data
from nni_spos.errors import ExperimentError
from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.files.digests import digest_weights
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.scorer import open_scorer
from nni_spos.spaces import Form
from nni_spos.supernet import save_supernet
from nni_spos.supernet.building import build_recipe_space


@pytest.fixture
def machines(study):
    with running_machines(study.folder, ("127.0.0.2", "127.0.0.3")) as machines:
        yield machines


@pytest.fixture
def config(study, machines):
    """The example, for these machines, a smaller search, and a supernet of random weights."""
    recipe = study.copy_examples(search={"population_size": 8, "num_generations": 2, "top_k": 4})
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=0)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)

    config = study.folder / "examples" / "remote.yml"
    content = yaml.safe_load(config.read_text())
    content["nniManagerIp"] = "127.0.0.1"
    content["trainingService"]["machineList"] = [machine.settings for machine in machines]
    config.write_text(yaml.safe_dump(content))
    return config


@pytest.mark.nni
def test_trials_on_two_machines(study, machines, config, one_thread):
    result = start(config, ManagerOptions(port=study.port, keep=True), report=lambda line: None)
    rows = study.manager.export()
    nnictl = Path(sys.executable).with_name("nnictl")
    subprocess.run([nnictl, "stop", result.id], check=True, capture_output=True)
    assert result.status == "DONE"

    # Both machines had their share, and each fetched the supernet once.
    recipe = load_recipe(config.parent / "recipes" / "digits.yml")
    for machine in machines:
        (environment,) = machine.home.glob(f"nni-experiments/{result.id}/environments/*")
        trials = list(environment.glob("trials/*"))
        assert len(trials) == 8
        fetched = [t for t in trials if "fetched" in (t / "trial.stdout").read_text()]
        assert len(fetched) == 1
        there = load_recipe(environment / "upload" / "trial_code" / "recipes" / "digits.yml")
        assert there.output.is_relative_to(machine.home)
        kept = dataclasses.replace(there, kept=digest_weights(recipe.checkpoint))
        assert kept.checkpoint.read_bytes() == recipe.checkpoint.read_bytes()
        assert describe(Result.MACHINES, there) == describe(Result.MACHINES, recipe)
        # One worker for all of them, which ends with the experiment.
        (log,) = there.output.glob("workers/*/worker.log")
        assert log.read_text().count("holds the supernet") == 1

    # What every row says is what its path gets in this process.
    scorer = open_scorer(recipe, cached=False)
    assert len(rows) == 16
    assert len({tuple(row["parameter"].values()) for row in rows}) == 16
    for row in rows:
        reported = row["value"]
        path = row["parameter"]
        assert reported.pop("path") == path
        assert reported.pop("memory")["peak_memory_bytes"] > 100e6
        found = scorer(path)
        assert reported.pop("default") == found.pop("top1")
        assert reported.pop("flops") <= 800e3
        assert reported.pop("params") > 0
        assert reported == found
    results = load_results(result.id)
    assert (results.num_done, results.num_failed) == (16, 0)
    assert study.processes() == []


@pytest.mark.nni
def test_a_machine_that_is_not_there(study, machines, config):
    machines[1].end()
    with pytest.raises(
        ExperimentError, match=r"a machine .* cannot be used: .*REFUSED 127\.0\.0\.3"
    ):
        start(config, ManagerOptions(port=study.port), report=lambda line: None)
    # What NNI had begun on the other machine when it gave up ends by itself.
    wait_until(lambda: study.processes() == [])
