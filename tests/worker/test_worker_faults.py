"""Workers in processes of their own, and everything that may happen to them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from waiting import wait_until
from worker_requests import Call, Workers, score_with_worker

from nni_spos.errors import CheckpointError, EvaluatorError, ExperimentError
from nni_spos.process.nni_processes import end_worker, wait_for_workers
from nni_spos.search.scorer import open_scorer
from nni_spos.supernet import load_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_supernet
from nni_spos.worker import client as worker_client
from nni_spos.worker import patience as worker_patience
from nni_spos.worker.client import connect

pytestmark = pytest.mark.spawn

PATH = {"layer_1": "k3", "layer_2": "xcep", "layer_3": "k7"}
OTHER = {"layer_1": "k7", "layer_2": "k5", "layer_3": "k3"}


@pytest.fixture
def workers(tmp_path, monkeypatch):
    # Sums depend on the number of threads, and results are compared exactly.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("HOLD", str(tmp_path / "hold"))
    workers = Workers(tmp_path)
    yield workers
    workers.end()
    torch.set_num_threads(before)


def inline(recipe, path):
    """The result without a worker; the file that holds workers must not be there."""
    return open_scorer(recipe)(path)


def test_trials_that_start_together_start_one_worker_and_get_what_they_would_without(workers):
    manager = workers.manager()
    paths = [{**PATH, "layer_1": choice} for choice in ("k3", "k5", "k7", "k3")]
    calls = [Call(score_with_worker, workers.recipe, path, manager) for path in paths]
    bad = Call(score_with_worker, workers.recipe, {**PATH, "layer_1": "k9"}, manager)
    results = [call.result() for call in calls]
    with pytest.raises(ExperimentError, match=r"^PathError: .*'k9' is not a choice"):
        bad.result()
    started = workers.processes()
    assert len(started) == 1
    assert results == [inline(workers.recipe, path) for path in paths]
    assert list(results[0]) == ["top1", "top5", "loss", "log_likelihood"]
    # It belongs neither to this process nor to its session, and goes on after an error.
    assert started[0] not in psutil.Process().children(recursive=True)
    assert os.getsid(started[0].pid) != os.getsid(0)
    assert score_with_worker(workers.recipe, OTHER, manager) == inline(workers.recipe, OTHER)
    assert workers.processes() == started


def test_a_worker_killed_in_mid_evaluation_is_replaced(workers):
    workers.hold.touch()
    call = Call(score_with_worker, workers.recipe, PATH, workers.manager())
    first = workers.wait_for_evaluation()
    first.kill()
    second = workers.wait_for_evaluation(other_than=first)
    workers.hold.unlink()
    assert call.result() == inline(workers.recipe, PATH)
    assert workers.processes() == [second]


def test_a_path_whose_worker_is_killed_twice_is_an_error_with_the_log(workers):
    workers.hold.touch()
    call = Call(score_with_worker, workers.recipe, PATH, workers.manager())
    first = workers.wait_for_evaluation()
    first.kill()
    second = workers.wait_for_evaluation(other_than=first)
    second.kill()
    with pytest.raises(EvaluatorError, match="ended, or did not start, 2 times") as caught:
        call.result()
    text = str(caught.value)
    assert "killed by a signal, such as SIGKILL" in text
    assert str(workers.place.log) in text
    assert text.endswith(f"worker {second.pid}: holds the supernet")
    assert "\n" not in text


@pytest.fixture
def impatient(monkeypatch):
    """Let trials wait for no longer than a worker takes to start on a busy machine."""
    monkeypatch.setattr(worker_patience, "SILENCE_S", 20.0)


def test_a_worker_stopped_in_mid_evaluation_is_replaced(workers, impatient):
    manager = workers.manager()
    workers.hold.touch()
    calls = [Call(score_with_worker, workers.recipe, path, manager) for path in (PATH, OTHER)]
    first = workers.wait_for_evaluation()
    first.suspend()
    second = workers.wait_for_evaluation(other_than=first)
    workers.hold.unlink()
    assert [call.result() for call in calls] == [
        inline(workers.recipe, path) for path in (PATH, OTHER)
    ]
    assert workers.processes() == [second]
    assert f"worker {first.pid}: is ended by a trial: it has said nothing for 20 s" in workers.log()


def test_a_worker_that_is_stopped_already_is_replaced_also_for_those_that_wait(workers, impatient):
    manager = workers.manager()
    expected = score_with_worker(workers.recipe, PATH, manager)
    (first,) = workers.processes()
    first.suspend()
    calls = [Call(score_with_worker, workers.recipe, PATH, manager) for _ in range(3)]
    assert [call.result() for call in calls] == [expected] * 3
    (second,) = workers.processes()
    assert second != first


HOLD_LOCK = """
import sys, time
from pathlib import Path
from nni_spos.errors import SposError
from nni_spos.files.locks import exclusive
with exclusive(Path(sys.argv[1]), -1, SposError("")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_stopped_trial_that_holds_the_lock_is_not_waited_for(workers, monkeypatch):
    monkeypatch.setattr(worker_client, "LOCK_S", 3.0)
    place = workers.place.make()
    command = [sys.executable, "-c", HOLD_LOCK, str(place.lock)]
    with psutil.Popen(command, stdout=subprocess.PIPE) as trial:
        assert trial.stdout.readline() == b"held\n"
        trial.suspend()
        manager = workers.manager()
        calls = [Call(score_with_worker, workers.recipe, x, manager) for x in (PATH, OTHER)]
        found = [call.result() for call in calls]
        trial.kill()
    assert found == [inline(workers.recipe, path) for path in (PATH, OTHER)]
    assert len(workers.processes()) == 1


def test_only_a_worker_of_the_folder_is_ended(workers):
    expected = score_with_worker(workers.recipe, PATH, manager := workers.manager())
    (worker,) = workers.processes()
    folder = str(workers.place.private)
    assert not end_worker(manager.pid, folder)
    assert not end_worker(worker.pid, folder[:-1])
    assert not end_worker(os.getpid(), folder)
    assert not end_worker(-1, folder)
    assert score_with_worker(workers.recipe, PATH, manager) == expected
    assert workers.processes() == [worker]
    assert end_worker(worker.pid, folder)
    assert workers.processes() == []
    assert manager.is_running()


ASK = """
import json, sys
from nni_spos.worker.client import ask_worker
from nni_spos.recipe.recipe import load_recipe
ask_worker(load_recipe(sys.argv[1]), json.loads(sys.argv[2]))
"""


def test_a_trial_killed_while_it_waits_disturbs_nobody(workers):
    manager = workers.manager()
    workers.hold.touch()
    call = Call(score_with_worker, workers.recipe, OTHER, manager)
    worker = workers.wait_for_evaluation()
    command = [sys.executable, "-c", ASK, str(workers.recipe.file), json.dumps(PATH)]
    with subprocess.Popen(command) as trial:
        socket = json.loads(workers.place.address.read_text())["address"]
        wait_until(lambda: is_connected_twice(worker, socket))
        trial.kill()
    workers.hold.unlink()
    assert call.result() == inline(workers.recipe, OTHER)
    third = {**PATH, "layer_3": "k3"}
    assert score_with_worker(workers.recipe, third, manager) == inline(workers.recipe, third)
    assert workers.processes() == [worker]
    assert "Traceback" not in workers.log()


def is_connected_twice(worker, socket):
    """Whether the worker has its listening socket and two more for trials."""
    return sum(c.laddr == socket for c in worker.net_connections("unix")) >= 3


def test_two_experiments_on_a_checkpoint_share_a_worker_to_the_end_of_both(workers):
    first, second = workers.manager(), workers.manager()
    calls = [
        Call(score_with_worker, workers.recipe, path, manager)
        for path, manager in ((PATH, first), (OTHER, second))
    ]
    assert [call.result() for call in calls] == [
        inline(workers.recipe, PATH),
        inline(workers.recipe, OTHER),
    ]
    (worker,) = workers.processes()
    first.kill()
    first.wait()
    third = {**PATH, "layer_3": "k3"}
    assert score_with_worker(workers.recipe, third, second) == inline(workers.recipe, third)
    assert workers.processes() == [worker]
    second.kill()
    second.wait()
    wait_until(lambda: not workers.processes())
    assert "ends: the experiments are over" in workers.log()
    assert not workers.place.address.exists()


def test_the_end_of_its_experiment_ends_a_worker_in_mid_evaluation(workers, monkeypatch):
    manager = workers.manager()
    workers.hold.touch()
    monkeypatch.setenv("NNI_EXP_ID", "mine")
    monkeypatch.setattr("nni_spos.worker.client.ATTEMPTS", 1)
    call = Call(score_with_worker, workers.recipe, PATH, manager)
    worker = workers.wait_for_evaluation()
    wait_for_workers("another", timeout=60.0)
    assert workers.processes() == [worker]
    manager.kill()
    manager.wait()
    wait_for_workers("mine", timeout=60.0)
    assert workers.processes() == []
    with pytest.raises(ExperimentError, match=r"the experiments are over$"):
        call.result()


def test_a_replaced_checkpoint_is_never_asked_of_the_old_worker(workers):
    recipe, manager = workers.recipe, workers.manager()
    old_result = inline(recipe, PATH)
    workers.hold.touch()
    call = Call(score_with_worker, recipe, PATH, manager)
    old, old_place = workers.wait_for_evaluation(), workers.place
    checkpoint = load_supernet(recipe.checkpoint)
    save_supernet(recipe.checkpoint, build_recipe_supernet(recipe, 5), checkpoint.preprocessing)
    assert workers.place != old_place
    workers.hold.unlink()
    new_result = inline(recipe, PATH)
    assert new_result != old_result
    assert score_with_worker(recipe, PATH, manager) == new_result
    # One that had asked before gets what the checkpoint was then, or is now.
    assert call.result() in (old_result, new_result)
    wait_until(lambda: old not in workers.processes())
    assert "ends: the checkpoint was replaced" in old_place.log.read_text()
    recipe.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="nni-spos train RECIPE"):
        score_with_worker(recipe, PATH, manager)


def test_what_a_killed_worker_left_behind_is_no_obstacle(workers):
    manager = workers.manager()
    expected = score_with_worker(workers.recipe, PATH, manager)
    (killed,) = workers.processes()
    killed.kill()
    wait_until(lambda: not workers.processes())
    left = Path(json.loads(workers.place.address.read_text())["address"])
    assert left.exists()
    assert workers.place.lock.exists()
    assert connect(workers.place) is None
    assert score_with_worker(workers.recipe, PATH, manager) == expected
    assert not left.exists()


def test_a_worker_without_trials_ends_by_itself(workers):
    shutil.rmtree(workers.recipe.output)
    workers = Workers(workers.folder, worker_idle_s=1)
    # Without a manager nothing else ends it; 1 s are not over while a trial waits.
    assert score_with_worker(workers.recipe, PATH) == inline(workers.recipe, PATH)
    wait_until(lambda: not workers.processes())
    assert "ends: there was no trial for 1 seconds" in workers.log()
    assert sorted(file.name for file in workers.place.path.iterdir()) == [
        "identity.json",
        "worker.log",
    ]
    assert [file.name for file in workers.place.private.iterdir()] == ["start.lock"]


def test_a_supernet_that_cannot_be_used_is_what_the_trial_says(workers):
    manager = workers.manager()
    good = workers.recipe.checkpoint.read_bytes()
    workers.recipe.checkpoint.write_bytes(good[:100])
    with pytest.raises(ExperimentError, match=r"^CheckpointError: .*supernet\.pt"):
        score_with_worker(workers.recipe, PATH, manager)
    wait_until(lambda: not workers.processes())


def test_a_recipe_that_is_not_the_one_in_its_file_is_refused(workers):
    settings = dataclasses.replace(workers.recipe.evaluation, seed=9)
    changed = dataclasses.replace(workers.recipe, evaluation=settings)
    with pytest.raises(ExperimentError, match="the recipe or its checkpoint has changed"):
        score_with_worker(changed, PATH, workers.manager())
    assert workers.processes() == []
