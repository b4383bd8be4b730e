import threading
import time

import nni
import nni.trial
import pytest
from small import SPACE

from nni_spos.errors import ExperimentError, PathError
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
    with pytest.raises(SystemExit) as ended:
        open_trial()
    assert ended.value.code == 0
    assert "mine has reported" in capsys.readouterr().out


def test_outside_of_nni_the_error_says_what_to_do(monkeypatch):
    for name in ("NNI_PLATFORM", "NNI_TRIAL_JOB_ID", "NNI_TRIAL_COMMAND_CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ExperimentError, match=r"not a trial of an NNI experiment.*nni-spos start"):
        open_trial()


def test_other_training_services_are_refused(trial, monkeypatch):
    monkeypatch.setenv("NNI_PLATFORM", "remote")
    with pytest.raises(ExperimentError, match="training service 'remote'"):
        open_trial()


@pytest.fixture
def reported(monkeypatch):
    values = []
    monkeypatch.setattr(nni.trial, "_params", None)
    monkeypatch.setattr(nni, "report_final_result", values.append)
    return values


def test_report_adds_the_path_and_the_default(reported):
    context = TrialContext(PATH, "mine", 4)
    context.report({"top1": 97.5, "loss": 0.1})
    context.report({"default": 1.0, "top1": 2.0})
    assert reported == [
        {"default": 97.5, "loss": 0.1, "path": PATH},
        {"default": 1.0, "top1": 2.0, "path": PATH},
    ]
    assert nni.trial._params["parameter_id"] == 4


def test_report_needs_a_result(reported):
    with pytest.raises(ExperimentError, match="needs 'default' or 'top1'; got loss"):
        TrialContext(PATH, "mine", 4).report({"loss": 0.1})
    assert reported == []


def test_a_report_that_cannot_be_sent(monkeypatch):
    def fail(value):
        raise ConnectionError("refused")

    monkeypatch.setattr(nni.trial, "_params", None)
    monkeypatch.setattr(nni, "report_final_result", fail)
    with pytest.raises(ExperimentError, match="cannot be reported"):
        TrialContext(PATH, "mine", 4).report({"top1": 1.0})
