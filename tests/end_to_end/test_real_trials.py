"""examples/spos.yml under the real nnictl, with trials that train and use a real supernet.

By default a worker evaluates for the trials; ``inline`` each of them does it itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.experiment.results import load_results
from nni_spos.experiment.scoring import open_scorer
from nni_spos.experiment.start import start, stop
from nni_spos.recipe import load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def one_thread(monkeypatch):
    """Sums depend on the number of threads, and the trials' results are compared exactly."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("evaluator", ["auto", "inline"])
def test_the_example_without_a_supernet(study, one_thread, evaluator):
    for folder in ("examples", "search_spaces"):
        shutil.copytree(ROOT / folder, study.folder / folder)
    file = study.folder / "examples" / "recipes" / "digits.yml"
    content = yaml.safe_load(file.read_text())
    content["data"].update(num_train=256, num_validation=100)
    content["supernet"].update(epochs=2)
    content["search"].update(population_size=3, num_generations=2, top_k=2)
    content["evaluation"].update(evaluator=evaluator)
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)

    result = start(
        study.folder / "examples" / "spos.yml",
        port=study.port,
        keep=True,
        report=lambda line: None,
    )
    rows = study.manager.export()
    stop(result.id)
    assert result.status == "DONE"
    assert study.processes() == []

    # One trial trained the supernet, in the folder of the recipe.
    assert recipe.checkpoint.exists()
    trials = list(Path(result.folder).glob("environments/*/trials/*/trial.stderr"))
    assert len(trials) == 6
    assert sum("supernet:" in trial.read_text() for trial in trials) == 1

    # By default one worker evaluates for all of them, and ends with the experiment.
    logs = [log.read_text() for log in recipe.output.glob("workers/*/worker.log")]
    assert len(logs) == (evaluator == "auto")
    for log in logs:
        assert log.count("holds the supernet") == 1
        assert "ends: the experiments are over" in log

    # What every row says is what its path gets in this process.
    scorer = open_scorer(recipe, cached=False)
    assert len(rows) == 6
    for row in rows:
        reported = row["value"]
        path = row["parameter"]
        assert reported.pop("path") == path
        found = scorer(path)
        assert reported.pop("default") == found.pop("top1")
        costs = {name: reported.pop(name) for name in ("flops", "params")}
        assert costs["flops"] <= 800e3
        assert reported == found
    best = load_results(result.id).best
    assert best.metrics["top1"] == scorer(best.path)["top1"]
