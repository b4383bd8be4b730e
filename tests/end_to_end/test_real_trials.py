"""examples/spos.yml under the real nnictl, with trials that train and use a real supernet.

By default a worker evaluates for the trials; ``inline`` each of them does it itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_spos.errors import ExperimentError
from nni_spos.experiment.start import ManagerOptions, resume, start, stop
from nni_spos.files.atomic import previous
from nni_spos.recipe.output import search_of_experiment
from nni_spos.search.results import experiment_folder, load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.search.scorer import open_scorer
from nni_spos.supernet.training import ensure_supernet


@pytest.mark.nni
@pytest.mark.parametrize("evaluator", ["auto", "inline"])
def test_the_example_without_a_supernet(study, one_thread, evaluator):
    recipe = study.copy_examples(
        supernet={"epochs": 2},
        search={"population_size": 3, "num_generations": 2, "top_k": 2},
        evaluation={"evaluator": evaluator},
    )

    result = start(
        study.folder / "examples" / "spos.yml",
        ManagerOptions(port=study.port, keep=True),
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
        assert reported.pop("memory")["peak_memory_bytes"] > 100e6
        found = scorer(path)
        assert reported.pop("default") == found.pop("top1")
        costs = {name: reported.pop(name) for name in ("flops", "params")}
        assert costs["flops"] <= 800e3
        assert reported == found
    assert (
        read_run_record(search_of_experiment(experiment_folder(result.id))).cost.peak_memory_bytes
        > 1e8
    )
    best = load_results(result.id).best
    assert best.metrics["top1"] == scorer(best.path)["top1"]


@pytest.mark.nni
def test_a_supernet_that_no_trial_can_read_ends_the_search_until_it_is_mended(study, one_thread):
    recipe = study.copy_examples(
        supernet={"epochs": 1}, search={"population_size": 3, "num_generations": 2, "top_k": 2}
    )
    ensure_supernet(recipe)
    content = recipe.checkpoint.read_bytes()
    recipe.checkpoint.write_bytes(content[: len(content) // 2])
    previous(recipe.checkpoint).unlink(missing_ok=True)
    config = study.folder / "examples" / "spos.yml"
    with pytest.raises(ExperimentError, match=r"not for its path: .*supernet\.pt") as ended:
        start(config, ManagerOptions(port=study.port), report=lambda line: None)
    assert study.processes() == []

    recipe.checkpoint.write_bytes(content)
    experiment_id = str(ended.value).split()[1]
    assert (
        resume(experiment_id, ManagerOptions(port=study.port), report=lambda line: None).status
        == "DONE"
    )
    assert [x.state.value for x in load_results(experiment_id).candidates] == ["done"] * 6
    assert study.processes() == []
