"""The trial command against a stand-in for NNI's manager."""

from __future__ import annotations

import dataclasses
import errno
import math
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from trained_recipes import write_trained, write_untrained
from waiting import wait_until

from nni_spos.costs.stored import load_costs
from nni_spos.data import open_data
from nni_spos.errors import (
    CheckpointError,
    EvaluatorError,
    ExperimentError,
    FailedPathError,
    PathError,
    ScoringWarning,
)
from nni_spos.experiment.shared_supernet import publish_supernet
from nni_spos.experiment.trial import run_trial, share_cores, uses_worker
from nni_spos.files.atomic import previous, write_json
from nni_spos.process.stage_cost import measure_memory
from nni_spos.scoring.failures import named
from nni_spos.search.kept_supernets import keep_for_trial
from nni_spos.search.scorer import PathScorer, open_scorer
from nni_spos.spaces import Form, ShuffleNetV2Space
from nni_spos.supernet import save_supernet, training
from nni_spos.supernet.building import build_recipe_space
from nni_spos.worker.client import identify, worker_folder

PATH = {"layer_1": "k3", "layer_2": "xcep", "layer_3": "k7"}


@pytest.fixture
def recipe(tmp_path):
    return write_trained(tmp_path, evaluation={"evaluator": "inline"})


@pytest.fixture
def environment(manager, monkeypatch):
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_EXP_ID", "abcd")
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "mine")
    channel = f"http://localhost:{manager.port}/env/local-env/mine"
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", channel)
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def test_the_result_of_the_trials_own_path_is_reported(recipe, manager, environment):
    manager.add_job("other", {**PATH, "layer_1": "k5"}, parameter_id=3)
    manager.add_job("mine", PATH, parameter_id=4)
    run_trial(recipe.file)
    results = open_scorer(recipe)(PATH)
    costs = {name: table.price(PATH) for name, table in load_costs(recipe)[1].items()}
    assert set(costs) == {"flops", "params"}
    expected = {"default": results.pop("top1"), **results, **costs, "path": PATH}
    ((metric, reported),) = manager.reports
    memory = reported.pop("memory")
    assert 100e6 < memory["peak_memory_bytes"] <= measure_memory()["peak_memory_bytes"]
    assert memory["device"] == measure_memory()["device"]
    assert reported == expected
    assert {type(value) for value in reported.values()} == {int, float, dict}
    assert (metric["trial_job_id"], metric["parameter_id"]) == ("mine", 4)
    assert metric["type"] == "FINAL"


def put_weights(recipe, seed):
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=seed)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)


@pytest.mark.parametrize("trained_by", ["a user", "the first trial"])
@pytest.mark.parametrize("then", ["replaced", "deleted"])
@pytest.mark.slow
def test_all_trials_of_an_experiment_use_the_supernet_of_the_first(
    recipe, manager, environment, monkeypatch, trained_by, then
):
    if trained_by == "the first trial":
        recipe.checkpoint.unlink()
        previous(recipe.checkpoint).unlink(missing_ok=True)
    paths = [{**PATH, "layer_1": choice} for choice in ("k3", "k5", "k7")]
    for number, path in enumerate(paths):
        manager.add_job("mine", path, parameter_id=number)
        run_trial(recipe.file)
        if number == 0:
            kept = keep_for_trial(recipe)
        put_weights(recipe, seed=number + 1)
        if then == "deleted":
            recipe.checkpoint.unlink()
            monkeypatch.setattr(training, "ensure_supernet", lambda recipe: pytest.fail("again"))
    scorer = open_scorer(kept, cached=False)
    expected = [scorer(path)["top1"] for path in paths]
    assert [reported["default"] for _, reported in manager.reports] == expected


@pytest.mark.slow
def test_a_missing_supernet_is_trained_first(tmp_path, manager, environment):
    recipe = write_untrained(tmp_path, evaluation={"evaluator": "inline"})
    manager.add_job("mine", PATH)
    run_trial(recipe.file)
    assert recipe.checkpoint.exists()
    ((_, reported),) = manager.reports
    assert reported["default"] == open_scorer(recipe)(PATH)["top1"]


@pytest.mark.parametrize("evaluator", ["inline", "auto"])
def test_what_every_trial_would_fail_of_is_reported(recipe, manager, environment, evaluator):
    recipe = write_trained(recipe.file.parent, evaluation={"evaluator": evaluator})
    recipe.checkpoint.write_bytes(b"damaged")
    previous(recipe.checkpoint).unlink()
    manager.add_job("mine", PATH, parameter_id=4)
    with pytest.raises((CheckpointError, EvaluatorError), match=r"supernet\.pt") as raised:
        run_trial(recipe.file)
    ((metric, reported),) = manager.reports
    assert (metric["type"], metric["parameter_id"]) == ("PERIODICAL", 4)
    assert reported == {"problem": f"{raised.type.__name__}: {raised.value}"}


def test_a_trial_that_reported_before_does_nothing(recipe, manager, environment, monkeypatch):
    recipe.checkpoint.unlink()
    monkeypatch.setattr(training, "ensure_supernet", lambda recipe: pytest.fail("expensive"))
    manager.add_job("mine", PATH, metrics={"default": 1.0})
    run_trial(recipe.file)
    assert manager.puts == []


def test_a_path_of_another_space_is_refused(recipe, manager, environment):
    manager.add_job("mine", {**PATH, "layer_1": "k9"})
    with pytest.raises(PathError, match="'k9' is not a choice"):
        run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert "PathError: " in reported["problem"], "the recipe of the trials is another one"


TROUBLE = [
    OSError(errno.ENOSPC, "No space left on device", "runs/workers"),
    PermissionError(errno.EACCES, "Permission denied", "runs"),
    OSError(errno.EMFILE, "Too many open files"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    EvaluatorError("the worker that evaluates paths ended, or did not start, 2 times."),
    ExperimentError("something of ours"),
    KeyError("a mistake of ours"),
]


def raises(problem):
    def function(*_, **__):
        raise problem

    return function


@pytest.mark.parametrize("evaluator", ["inline", "auto"])
@pytest.mark.parametrize("problem", TROUBLE, ids=lambda problem: named(problem)[:20])
def test_trouble_is_reported_as_no_fault_of_the_path(
    recipe, manager, environment, monkeypatch, problem, evaluator
):
    recipe = write_trained(recipe.file.parent, evaluation={"evaluator": evaluator})
    monkeypatch.setattr("nni_spos.experiment.trial.ask_worker", raises(problem))
    monkeypatch.setattr(PathScorer, "evaluate", raises(problem))
    manager.add_job("mine", PATH, parameter_id=4)
    with pytest.raises(type(problem)):
        run_trial(recipe.file)
    ((metric, reported),) = manager.reports
    assert metric["type"] == "PERIODICAL"
    assert list(reported) == ["problem"]
    assert named(problem) in reported["problem"]
    lacks_memory = isinstance(problem, MemoryError) or "allocate" in str(problem)
    assert ("too little memory for the path 'k3 xcep k7'" in reported["problem"]) == lacks_memory


def test_costs_that_cannot_be_read_are_trouble(recipe, manager, environment, monkeypatch):
    problem = PermissionError(errno.EACCES, "Permission denied", "costs.json")
    monkeypatch.setattr("nni_spos.experiment.trial.load_costs", raises(problem))
    manager.add_job("mine", PATH)
    with pytest.raises(PermissionError):
        run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert reported == {"problem": "PermissionError: [Errno 13] Permission denied: 'costs.json'"}


def test_a_training_that_fails_is_no_fault_of_the_path(tmp_path, manager, environment, monkeypatch):
    recipe = write_untrained(tmp_path, evaluation={"evaluator": "inline"})
    monkeypatch.setattr(training, "ensure_supernet", raises(RuntimeError("mat1 and mat2")))
    manager.add_job("mine", PATH)
    with pytest.raises(RuntimeError, match="mat1"):
        run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert reported == {"problem": "RuntimeError: mat1 and mat2"}


class OfItsOwn(ShuffleNetV2Space):
    """A network that cannot take one of its choices."""

    problem = None

    def forward(self, images):
        if self.problem is not None:
            raise self.problem
        return super().forward(images)


@pytest.mark.parametrize(
    "problem", [ValueError("no such axis"), RuntimeError("shapes differ"), ZeroDivisionError("x")]
)
def test_what_a_network_raises_fails_its_path(tmp_path, manager, environment, monkeypatch, problem):
    recipe = write_trained(
        tmp_path,
        space={"name": f"{Path(__file__).stem}:OfItsOwn"},
        evaluation={"evaluator": "inline"},
    )
    monkeypatch.setattr(sys.modules["test_trial"].OfItsOwn, "problem", problem)
    manager.add_job("mine", PATH, parameter_id=4)
    with pytest.raises(FailedPathError, match=str(problem)):
        run_trial(recipe.file)
    ((metric, reported),) = manager.reports
    assert metric["type"] == "PERIODICAL"
    assert reported == {"failed": f"{type(problem).__name__}: {problem}"}


def test_outputs_that_are_not_finite_fail_their_path(recipe, manager, environment, monkeypatch):
    nan = [{"top1": math.nan, "top5": math.nan, "loss": math.nan}]
    monkeypatch.setattr(PathScorer, "evaluate", lambda *_: nan)
    manager.add_job("mine", PATH)
    with pytest.raises(FailedPathError, match="not finite"):
        run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert reported["failed"].startswith("NotFiniteError: the outputs of the network are not")


def test_a_trial_that_is_run_again_takes_back_what_it_reported(recipe, manager, environment):
    manager.intermediate = {"mine": {"problem": "OSError: No space left on device"}}
    manager.add_job("mine", PATH)
    run_trial(recipe.file)
    (first, again), (second, result) = manager.reports
    assert (first["type"], again) == ("PERIODICAL", {"again": True})
    assert second["type"] == "FINAL"
    assert result["default"] >= 0


def test_warnings_of_the_scoring_are_part_of_the_report(recipe, manager, environment, monkeypatch):
    real = PathScorer.evaluate

    def warns(self, paths, progress=None):
        warnings.warn("it gives other outputs each time", ScoringWarning, stacklevel=1)
        return real(self, paths, progress)

    monkeypatch.setattr(PathScorer, "evaluate", warns)
    manager.add_job("mine", PATH)
    run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert reported["notes"] == ["it gives other outputs each time"]


def test_outside_of_nni_it_fails_at_once(recipe):
    program = (
        "import sys\n"
        "from nni_spos.errors import ExperimentError\n"
        "from nni_spos.experiment.trial import run_trial\n"
        "try:\n"
        "    run_trial(sys.argv[1])\n"
        "except ExperimentError as problem:\n"
        "    print(problem, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(recipe.file)]
    done = subprocess.run(command, capture_output=True, text=True, env={})
    assert done.stdout.startswith("this is not a trial of an NNI experiment."), done.stderr
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize(
    ("evaluator", "platform", "expected"),
    [
        ("auto", "local", True),
        ("auto", "remote", True),
        ("inline", "remote", False),
        ("inline", "local", False),
    ],
)
def test_who_evaluates(recipe, monkeypatch, evaluator, platform, expected):
    monkeypatch.setenv("NNI_PLATFORM", platform)
    settings = dataclasses.replace(recipe.evaluation, evaluator=evaluator)
    assert uses_worker(dataclasses.replace(recipe, evaluation=settings)) is expected


@pytest.fixture
def elsewhere(recipe, manager, environment, monkeypatch, tmp_path):
    """A trial on another machine, whose tuner has the supernet of `recipe`."""
    monkeypatch.setenv("NNI_PLATFORM", "remote")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "trials" / "mine"))
    keeper = tmp_path / "trial_keeper" / "trial_keeper_config.json"
    channel = f"ws://127.0.0.1:{manager.port}/platform/remote/1"
    write_json(keeper, {"managerCommandChannel": channel})
    (tmp_path / "log").mkdir()
    publish_supernet(recipe, tmp_path / "log")
    manager.logs = {file.name: file.read_bytes() for file in (tmp_path / "log").iterdir()}


def test_a_trial_elsewhere_fetches_the_supernet(recipe, manager, elsewhere):
    manager.add_job("mine", PATH, parameter_id=4)
    results = open_scorer(recipe)(PATH)
    shutil.rmtree(recipe.output / "supernets")
    recipe.checkpoint.unlink()
    run_trial(recipe.file)
    (fetched,) = (recipe.output / "supernets").glob("*.pt")
    assert fetched.read_bytes() == manager.logs["supernet.pt"]
    ((_, reported),) = manager.reports
    assert (reported["default"], reported["loss"]) == (results["top1"], results["loss"])
    assert reported["log_likelihood"] == -results["loss"]


def test_a_trial_elsewhere_never_trains(recipe, manager, elsewhere, monkeypatch):
    monkeypatch.setattr(training, "ensure_supernet", lambda recipe: pytest.fail("expensive"))
    manager.add_job("mine", PATH)
    recipe.checkpoint.unlink()
    manager.logs = {}
    with pytest.raises(CheckpointError, match=r"the tuner had no supernet .* Train it on"):
        run_trial(recipe.file)
    ((_, reported),) = manager.reports
    assert "the tuner had no supernet" in reported["problem"]


TRIAL = """
import sys
from nni_spos.cli import main
code = main(["trial", sys.argv[1]])
print(code, [name for name in ("torch", "nni", "sklearn") if name in sys.modules])
"""


@pytest.mark.spawn
def test_with_a_worker_a_trial_needs_neither_pytorch_nor_nni(tmp_path, manager, environment):
    recipe = write_trained(tmp_path, evaluation={"cache": False, "worker_idle_s": 1})
    manager.add_job("mine", PATH, parameter_id=4)
    expected = open_scorer(recipe)(PATH)
    command = [sys.executable, "-W", "ignore", "-c", TRIAL, str(recipe.file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("0 []\n", 0), done.stderr
    ((_, reported),) = manager.reports
    assert reported["default"] == expected["top1"]
    assert reported["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    # Without an NNI manager it is the time without trials that ends the worker.
    kept = keep_for_trial(recipe)
    log = worker_folder(kept, identify(kept)).log
    wait_until(lambda: "ends: there was no trial" in log.read_text())


@pytest.mark.parametrize(
    ("concurrency", "num_machines", "expected"),
    [(1, 0, 8), (2, 0, 4), (3, 0, 2), (8, 0, 1), (25, 0, 1), (4, 1, 2), (4, 2, 4), (3, 2, 4)],
)
def test_trials_share_the_cores(
    manager, environment, monkeypatch, concurrency, num_machines, expected
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    manager.profile["params"]["trialConcurrency"] = concurrency
    if num_machines:
        manager.profile["params"]["trainingService"] = {"machineList": [{}] * num_machines}
    torch.set_num_threads(8)
    share_cores()
    assert torch.get_num_threads() == expected


def test_the_users_number_of_threads_is_kept(manager, environment, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    torch.set_num_threads(8)
    share_cores()
    assert torch.get_num_threads() == 8


def test_a_manager_that_is_gone(recipe, manager, environment, monkeypatch):
    monkeypatch.setattr("nni_spos.experiment.exchange.LOST_AFTER", 0.2)
    manager.close()
    with pytest.raises(ExperimentError, match="cannot be reached"):
        run_trial(recipe.file)
