import json
import math
import os
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from nni.runtime.trial_command_channel.v3 import TrialCommandChannelV3
from small_experiments import SPACE, FakeManager, write_recipe
from waiting import wait_until

from nni_spos.errors import ExperimentError, PathError
from nni_spos.experiment import exchange
from nni_spos.experiment.exchange import TrialContext, open_trial

PATH = {"a": "k3", "b": "k7", "ratio": 1.0}


@pytest.fixture
def trial(manager, monkeypatch):
    monkeypatch.setenv("NNI_PLATFORM", "local")
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "mine")
    channel = f"http://localhost:{manager.port}/env/local-env/mine"
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", channel)


def test_a_trial_reads_its_own_record(trial, manager):
    manager.add_job("other", {**PATH, "a": "k5"}, parameter_id=3)
    manager.add_job("mine", PATH, parameter_id=4)
    context = open_trial()
    assert (context.path, context.job_id, context.parameter_id) == (PATH, "mine", 4)


def test_numbers_get_back_their_type(trial, manager):
    manager.add_job("mine", PATH)
    assert type(open_trial().path["ratio"]) is int
    path = open_trial(SPACE).path
    assert path == PATH
    assert type(path["ratio"]) is float


def test_a_path_of_another_space_is_refused(trial, manager):
    manager.add_job("mine", {**PATH, "a": "k9"})
    with pytest.raises(PathError, match="'k9' is not a choice"):
        open_trial(SPACE)


def test_the_record_may_come_late(trial, manager):
    manager.jobs["mine"] = {"trialJobId": "mine", "status": "WAITING", "hyperParameters": []}
    threading.Timer(0.5, manager.add_job, ["mine", PATH]).start()
    assert open_trial().path == PATH


def test_no_record_is_an_error(trial):
    with pytest.raises(ExperimentError, match=r"which path trial mine .* no record of it"):
        open_trial(timeout=0.3)


def test_a_manager_that_is_gone_is_given_up(trial, manager, monkeypatch):
    monkeypatch.setattr("nni_spos.experiment.exchange.LOST_AFTER", 0.3)
    manager.close()
    begin = time.monotonic()
    with pytest.raises(ExperimentError, match="cannot be reached"):
        open_trial()
    assert time.monotonic() - begin < 5


def test_a_trial_that_reported_before_is_not_run_again(trial, manager, capsys):
    manager.add_job("mine", PATH, "RUNNING", metrics={"default": 1.0})
    assert open_trial() is None
    assert "mine has reported" in capsys.readouterr().out


def test_outside_of_nni_the_error_says_what_to_do(monkeypatch):
    for name in ("NNI_PLATFORM", "NNI_TRIAL_JOB_ID", "NNI_TRIAL_COMMAND_CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ExperimentError, match=r"not a trial of an NNI experiment.*nni-spos start"):
        open_trial()


def test_other_training_services_are_refused(trial, monkeypatch):
    monkeypatch.setenv("NNI_PLATFORM", "openpai")
    with pytest.raises(ExperimentError, match="training service 'openpai'"):
        open_trial()


@pytest.fixture
def elsewhere(manager, monkeypatch, tmp_path):
    """A trial on another machine: the folder of its environment, with the keeper's settings."""
    monkeypatch.setenv("NNI_PLATFORM", "remote")
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "mine")
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", "http://localhost:9/env/remote-worker1/mine")
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(tmp_path / "trials" / "mine"))
    write_keeper(tmp_path / "trial_keeper", f"ws://127.0.0.1:{manager.port}/platform/remote/1")
    return tmp_path


def write_keeper(folder, channel):
    folder.mkdir()
    settings = {} if channel is None else {"managerCommandChannel": channel}
    (folder / "trial_keeper_config.json").write_text(json.dumps(settings))


def test_a_trial_elsewhere_reads_its_record_from_the_manager(elsewhere, manager):
    manager.add_job("other", {**PATH, "a": "k5"}, parameter_id=3)
    manager.add_job("mine", PATH, parameter_id=4)
    context = open_trial(SPACE)
    assert (context.path, context.job_id, context.parameter_id) == (PATH, "mine", 4)


def test_a_trial_elsewhere_reports_to_its_keeper(elsewhere, manager, monkeypatch):
    manager.add_job("mine", PATH, parameter_id=4)
    keeper = FakeManager()
    channel = f"http://localhost:{keeper.port}/env/remote-worker1/mine"
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", channel)
    open_trial(SPACE).report({"top1": 1.0})
    keeper.close()
    assert manager.puts == []
    ((metric, result),) = keeper.reports
    assert keeper.puts[0][0] == "/env/remote-worker1/mine"
    assert (metric["trial_job_id"], metric["parameter_id"]) == ("mine", 4)
    assert result == {"default": 1.0, "path": PATH}


def test_of_several_keepers_the_latest_knows_the_manager(elsewhere, manager):
    manager.add_job("mine", PATH)
    old, new = elsewhere / "trial_keeper", elsewhere / "trial_keeper_1"
    old.rename(new)
    write_keeper(old, "ws://127.0.0.1:9/platform/remote/1")
    os.utime(old / "trial_keeper_config.json", (1, 1))
    assert open_trial(SPACE).path == PATH


def test_the_keeper_above_a_trial_knows_the_manager_whatever_the_clock_said(
    elsewhere, manager, monkeypatch
):
    manager.add_job("mine", PATH)
    own, other = elsewhere / "trial_keeper", elsewhere / "trial_keeper_1"
    write_keeper(other, "ws://127.0.0.1:9/platform/remote/1")
    os.utime(own / "trial_keeper_config.json", (1, 1))
    command = [sys.executable, "-c", "input()", "trial_keeper/main.js", str(own)]
    with psutil.Popen(command, stdin=subprocess.PIPE) as keeper:
        wait_until(keeper.cmdline)  # for a moment after it has begun a process has none
        monkeypatch.setattr(exchange, "manager_process", lambda: keeper)
        assert open_trial(SPACE).path == PATH


def test_a_keeper_that_says_nothing(elsewhere, monkeypatch):
    monkeypatch.setenv("NNI_OUTPUT_DIR", str(elsewhere / "a" / "trials" / "mine"))
    with pytest.raises(ExperimentError, match=r"keeper left no configuration here\.$"):
        open_trial()
    (elsewhere / "a").mkdir()
    write_keeper(elsewhere / "a" / "trial_keeper", None)
    with pytest.raises(ExperimentError, match="does not say where the NNI manager is"):
        open_trial()


def test_report_adds_the_path_and_the_default(trial, manager):
    context = TrialContext(PATH, "mine", 4)
    context.report({"top1": 97.5, "loss": 0.1})
    context.report({"default": 1.0, "top1": 2.0})
    assert [result for _, result in manager.reports] == [
        {"default": 97.5, "loss": 0.1, "path": PATH},
        {"default": 1.0, "top1": 2.0, "path": PATH},
    ]


def test_a_report_is_what_nnis_own_client_sends(trial, manager):
    TrialContext(PATH, "mine", 4).report({"default": 97.5, "loss": math.nan})
    TrialCommandChannelV3(os.environ["NNI_TRIAL_COMMAND_CHANNEL"]).send_metric(
        type="FINAL",
        parameter_id=4,
        trial_job_id="mine",
        sequence=0,
        value={"default": 97.5, "loss": math.nan, "path": PATH},
    )
    ours, theirs = manager.puts
    assert ours == theirs
    assert ours[0] == "/env/local-env/mine"


def test_numbers_of_numpy_and_pytorch_are_reported(trial, manager):
    context = TrialContext(PATH, "mine", 4)
    context.report({"top1": np.float32(0.5), "loss": torch.tensor(2.0), "count": np.int64(3)})
    ((_, result),) = manager.reports
    assert result == {"default": 0.5, "loss": 2.0, "count": 3, "path": PATH}


@pytest.mark.parametrize("value", [torch.zeros(2), np.zeros(2), object(), {1, 2}])
def test_a_result_that_is_not_made_of_numbers_is_refused(trial, manager, value):
    with pytest.raises(ExperimentError, match="not made of numbers"):
        TrialContext(PATH, "mine", 4).report({"top1": value})
    assert manager.puts == []


def test_report_needs_a_result(trial, manager):
    words = "needs 'default' or 'top1' or 'map' or 'r2' or 'miou'; got loss"
    with pytest.raises(ExperimentError, match=words):
        TrialContext(PATH, "mine", 4).report({"loss": 0.1})
    assert manager.puts == []


def test_a_result_is_the_objective_of_the_recipes_task(trial, manager, tmp_path):
    file = write_recipe(tmp_path)
    file.write_text(file.read_text() + "task: {name: classification, topk: [3]}\n")
    tuner = {"codeDirectory": str(tmp_path), "classArgs": {"recipe": file.name}}
    manager.profile["params"]["tuner"] = tuner
    context = TrialContext(PATH, "mine", 4)
    with pytest.raises(ExperimentError, match="needs 'default' or 'top3'; got top1"):
        context.report({"top1": 50.0})
    assert manager.puts == []
    context.report({"top1": 50.0, "top3": 80.0})
    ((_, result),) = manager.reports
    assert result == {"default": 80.0, "top1": 50.0, "path": PATH}
    file.unlink()  # as on another machine
    context.report({"r2": 0.5})
    assert manager.reports[-1][1] == {"default": 0.5, "path": PATH}


def test_a_report_that_cannot_be_sent(trial, manager):
    manager.close()
    with pytest.raises(ExperimentError, match=r"cannot be reported: .*cannot be reached"):
        TrialContext(PATH, "mine", 4).report({"top1": 1.0})
