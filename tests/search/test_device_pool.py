"""A generation on several devices: the same numbers, and no process left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from trained_recipes import write_trained, write_untrained
from waiting import PATIENCE, wait_until

from nni_spos.errors import CheckpointError, ExperimentError, PathError, RecipeError
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.search import device_pool
from nni_spos.search.device_pool import DevicePool, name_devices, open_device_scorer
from nni_spos.search.running import run_search
from nni_spos.search.scorer import PathScorer, open_scorer
from nni_spos.supernet import load_supernet

TWO = {"devices": 2}
FORK = multiprocessing.get_context("fork")


def draw(scorer, count):
    space = PathSpace.from_model_space(scorer.supernet)
    return [UniformPrior(space, seed=1).path(step) for step in range(count)]


def children(pid=None):
    processes = psutil.Process(pid).children(recursive=True)
    return [p for p in processes if "resource_tracker" not in " ".join(p.cmdline())]


@pytest.fixture
def recipe(tmp_path):
    return write_trained(tmp_path, evaluation=TWO)


@pytest.fixture
def pool(recipe):
    scorer = open_device_scorer(recipe)
    yield scorer
    scorer.close()
    assert not children()


@pytest.fixture
def forked(monkeypatch):
    """Fork the processes, which then need not import PyTorch and NNI for seconds each.

    For what is not about how they start: the tests without this start real ones.
    """
    stand_in = SimpleNamespace(
        get_context=lambda method: FORK, parent_process=multiprocessing.parent_process
    )
    monkeypatch.setattr(device_pool, "multiprocessing", stand_in)
    # The threads that have computed here are not in a fork, which would wait for them.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_two_processes_score_as_one(recipe, pool):
    one = open_scorer(recipe, cached=False)
    paths = draw(one, 7)
    shares = []
    results = pool.score_many(paths, shares.append)
    assert isinstance(pool, DevicePool)
    for found, expected in zip(results, one.score_many(paths), strict=True):
        assert (found["top1"], found["top5"]) == (expected["top1"], expected["top5"])
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert len(children()) == 2
    assert shares[-1] == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in shares)
    # Fewer paths than processes, in the order asked for, and out of the cache.
    assert pool(paths[3]) == results[3]
    with pytest.raises(PathError, match="layer_1"):
        pool({**paths[0], "layer_1": "k9"})


@pytest.mark.slow
def test_a_search_uses_them_and_ends_them(forked, recipe):
    results = run_search(recipe, progress=False)
    one = open_scorer(recipe, cached=False)
    assert len(results.candidates) == 8
    for candidate in results.candidates:
        assert candidate.metrics["top1"] == one(candidate.path)["top1"]
    assert not children()


@pytest.mark.slow
def test_a_process_that_is_killed_is_said_to_be(forked, recipe, pool):
    paths = draw(open_scorer(recipe), 4)
    pool.score_many(paths[:2])
    for child in children():
        child.kill()
    with pytest.raises(ExperimentError, match="was killed, perhaps for want of memory"):
        pool.score_many(paths[2:])


@pytest.mark.slow
def test_what_a_process_cannot_open_is_raised(forked, recipe, pool):
    paths = draw(open_scorer(recipe), 2)
    recipe.checkpoint.write_bytes(b"no checkpoint")  # into the file that the search keeps
    with pytest.raises(CheckpointError, match=str(recipe.output / "supernets")):
        pool.score_many(paths)


@pytest.mark.slow
def test_a_supernet_that_takes_the_place_of_the_one_that_was_opened(forked, recipe, pool):
    one = open_scorer(recipe, cached=False)
    paths = draw(one, 2)
    recipe.checkpoint.unlink()
    recipe.checkpoint.write_bytes(b"another")
    for found, expected in zip(pool.score_many(paths), one.score_many(paths), strict=True):
        assert found["top1"] == expected["top1"]


@pytest.mark.slow
def test_other_weights_than_those_that_were_opened_are_refused(forked, recipe):
    space = load_supernet(recipe.checkpoint).space
    one = open_scorer(recipe, cached=False)
    paths = draw(one, 2)
    for weights, problem in ((one.weights, ""), ("another", "was replaced meanwhile")):
        with contextlib.closing(DevicePool(recipe, ["cpu"], space, None, weights)) as pool:
            if problem:
                with pytest.raises(CheckpointError, match=problem):
                    pool.score_many(paths)
            else:
                assert len(pool.score_many(paths)) == 2


def test_a_supernet_that_is_not_trained_is_refused_before_processes_start(tmp_path):
    with pytest.raises(CheckpointError, match="nni-spos train"):
        open_device_scorer(write_untrained(tmp_path, evaluation=TWO))
    assert not children()


SEARCH = """
import signal, sys
from nni_spos.search.running import run_search
from nni_spos.recipe.recipe import load_recipe
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    try:
        run_search(load_recipe(sys.argv[1]), progress=False)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.spawn
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_search_that_is_stopped(tmp_path, number):
    recipe = write_trained(
        tmp_path,
        data={"num_train": 800, "num_validation": 600},
        evaluation={**TWO, "recalibration_images": 800},
        search={"population_size": 50, "num_generations": 20},
    )
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    command = [sys.executable, "-W", "ignore", script, recipe.file]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    journal = recipe.output / "search" / "search.jsonl"
    # Three processes import PyTorch and NNI first, perhaps beside others that do.
    wait_until(lambda: journal.exists() and journal.read_text().count("\n") > 10)
    pool = children(process.pid)
    assert len(pool) == 2
    process.send_signal(number)
    output = process.communicate(timeout=PATIENCE)[0]
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in pool))
    assert output == ("interrupted\n" if number == signal.SIGINT else "")


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert name_devices("auto") == ["cpu"]
    assert name_devices(3) == ["cpu"] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert name_devices("auto") == name_devices(2) == ["cuda:0", "cuda:1"]
    assert name_devices(1) == ["cuda:0"]
    with pytest.raises(RecipeError, match="got 3, but 2 GPUs are visible"):
        name_devices(3)


def test_one_device_needs_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(device_pool, "name_devices", lambda _: ["cpu"])
    assert isinstance(open_device_scorer(write_trained(tmp_path)), PathScorer)
    assert not children()
