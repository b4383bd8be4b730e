"""The processes of a training on one machine: how they end, alone, together and by force."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import time

import psutil
import pytest
import tasks_of_ranks as tasks
import torch
import yaml
from waiting import PATIENCE, wait_until

from nni_spos.cli import main
from nni_spos.errors import DataError, ProcessError
from nni_spos.process.child import python_command
from nni_spos.ranks import launch, run_processes
from nni_spos.ranks.launch import Job, Outcome
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.supernet import load_supernet

PAIR = TrainSettings(steps=1, batch_size=4, devices=2)


@pytest.fixture
def recipe(tmp_path):
    def write(**supernet):
        content = {
            "output": "runs",
            "space": {"name": "shufflenet_small", "stem_channels": 4, "stage_repeats": [1, 2],
                      "stage_channels": [8, 16], "last_channels": 16},
            "data": {"name": "digits", "num_train": 120, "num_validation": 60},
            "supernet": {"batch_size": 40, "learning_rate": 0.1, "devices": 2, **supernet},
            "retrain": {"epochs": 1},
        }  # fmt: skip
        file = tmp_path / "recipe.yml"
        file.write_text(yaml.safe_dump(content))
        return load_recipe(file)

    return write


pytestmark = pytest.mark.usefixtures("found_by_others")


@pytest.fixture
def found_by_others(monkeypatch):
    """Let the processes that are started import the tasks."""
    paths = [os.path.dirname(tasks.__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.spawn
def test_the_result_is_that_of_the_first_process():
    assert run_processes(PAIR, tasks.sum_of_ranks, 10) == {"sum": torch.tensor(21)}
    assert not children()


@pytest.mark.spawn
def test_an_error_of_one_process_is_the_error_of_all():
    with pytest.raises(DataError, match=r"^image 7 is damaged\.$"):
        run_processes(PAIR, tasks.fail_in_one)
    assert not children()


@pytest.mark.spawn
def test_one_process_that_is_killed_ends_the_other():
    with pytest.raises(ProcessError, match=r"process 1 of the training was killed by signal 9"):
        run_processes(PAIR, tasks.die_in_one)
    assert not children()


BEGIN = [time.time()]


@pytest.fixture(autouse=True)
def begin():
    BEGIN[0] = time.time()


def children():
    """Processes of the test; earlier ones may have left a helper of theirs."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.create_time() >= BEGIN[0] - 0.1]


LOST = Outcome(error=ProcessError("another process of the training is gone."))


@pytest.mark.parametrize(
    ("outcomes", "codes", "error", "words"),
    [
        ([LOST, Outcome(error=DataError("no"))], [1, 1], DataError, "no"),
        ([LOST, Outcome(error=OSError(28, "No space left"))], [1, 1], OSError, "No space left"),
        ([LOST, Outcome(bug="IndexError: 7")], [1, 1], RuntimeError, "IndexError: 7"),
        ([LOST, None], [1, -9], ProcessError, "process 1 of the training was killed by signal 9"),
        ([LOST, None], [1, 3], ProcessError, "another process of the training is gone"),
        ([None, None], [1, -9], ProcessError, "process 1 of the training was killed"),
        ([None, None], [1, 1], ProcessError, "ended by itself"),
    ],
)
def test_the_first_cause_is_what_is_said(outcomes, codes, error, words):
    with pytest.raises(error, match=words):
        launch._result(outcomes, codes)


@pytest.mark.spawn
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    process = subprocess.Popen(
        python_command(launch.MODULE, [str(tmp_path / "outcome")]),
        stdin=subprocess.PIPE,
        env={**os.environ, "RANK": "0"},
    )
    with process:
        process.stdin.write(pickle.dumps(Job(tasks.write_and_wait, (tmp_path,))))
        process.stdin.flush()
        wait_until((tmp_path / str(process.pid)).exists)
        process.stdin.close()  # as the system does for a process that ends
        assert process.wait(PATIENCE) == 1
    assert not (tmp_path / "outcome").exists()


@pytest.mark.spawn
def test_training_on_the_command_line(recipe, capfd):
    made = recipe(epochs=1)
    assert main(["train", str(made.file), "--paths", "0"]) == 0
    out, err = capfd.readouterr()
    assert out == f"supernet: {made.checkpoint}\n"
    assert "100%" in err
    assert err.count("\n") == 1, "one progress bar, and nothing else"
    assert load_supernet(made.checkpoint).weights


@pytest.mark.spawn
def test_ctrl_c_ends_all_processes(recipe):
    made = recipe(epochs=10_000)
    folder = made.checkpoint.with_suffix("")
    command = [sys.executable, "-W", "ignore", "-m", "nni_spos.cli", "train", str(made.file)]
    # A shell that started the tests in the background lets them, and so us, ignore Ctrl-C.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        wait_until((folder / "step_0000003.ckpt").exists)
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) == 2
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == 130
    assert error.splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in error
    assert not psutil.wait_procs(started, timeout=PATIENCE)[1]
    assert not made.checkpoint.exists()


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_what_ends_a_training_in_one_process_is_told_apart(recipe, number, code, said):
    made = recipe(epochs=10_000, devices=1)
    folder = made.checkpoint.with_suffix("")
    command = [sys.executable, "-W", "ignore", "-m", "nni_spos.cli", "train", str(made.file)]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    try:
        wait_until((folder / "step_0000003.ckpt").exists)
        running.send_signal(number)
        _, error = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == code
    assert error.splitlines()[-1].endswith(said)
    assert "Traceback" not in error
    assert not made.checkpoint.exists()
