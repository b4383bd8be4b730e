import pytest

from nni_spos.experiment.failure import explain_failure, explain_no_result, explain_stop
from nni_spos.files.sealing import seal_record

REPORTED = """\
[2026-01-01 10:00:00] INFO (NNIManager) Change status
[2026-01-01 10:00:01] ERROR (NNIManager) Dispatcher error: Traceback (most recent call last):
  File "tuner.py", line 3, in guarded
    return method(self)
nni_spos.errors.PathError: label 'x': no such label.

[2026-01-01 10:00:02] ERROR (NNIManager) Error: Dispatcher stream error, tuner may have crashed.
    at EventEmitter.<anonymous> (/nnimanager.js:601:32)
"""
STARTED = """\
[2026-01-01 10:00:00] ERROR (nni.main/MainThread) No module named 'nni_spos'
Traceback (most recent call last):
  File "__main__.py", line 85, in <module>
    main()
ModuleNotFoundError: No module named 'nni_spos'
"""
MANAGER = """\
Error: tuner_command_channel: Tuner did not connect in 10 seconds. Please check tuner log.
    at Timeout._onTimeout (/nni_node/core/tuner_command_channel.js:47:41)
"""


@pytest.fixture
def logs(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_the_reason_that_the_tuner_reported(logs, tmp_path):
    (logs / "nnimanager.log").write_text(REPORTED)
    text = explain_failure(tmp_path, ["Dispatcher stream error, tuner may have crashed."])
    assert text == f"PathError: label 'x': no such label. (see {logs / 'nnimanager.log'})"


@pytest.mark.parametrize("file", ["dispatcher.log", "nnictl_stderr.log"])
def test_a_tuner_that_did_not_start(logs, tmp_path, file):
    (logs / "nnictl_stderr.log").write_text(MANAGER)
    (logs / file).write_text(STARTED + (MANAGER if file == "nnictl_stderr.log" else ""))
    text = explain_failure(tmp_path, ["tuner_command_channel: Tuner did not connect in 10 s"])
    assert "did not start: ModuleNotFoundError: No module named 'nni_spos'" in text
    assert str(logs / file) in text


def test_without_logs_the_manager_is_quoted(tmp_path):
    text = explain_failure(tmp_path, ["Training service error: disk full"])
    assert text.startswith("Training service error: disk full (see ")
    assert "no reason given" in explain_failure(tmp_path, [])
    text = explain_failure(tmp_path, ["Tuner did not connect"])
    assert "did not start: it did not connect in time" in text
    assert "If the machine is busy" in text


REMOTE = """\
[2026-01-01 10:00:00] INFO (main) Start NNI manager
[2026-01-01 10:00:00] INFO (RemoteV3.remote) Starting remote training service...
[2026-01-01 10:00:00] ERROR (TrainingServiceCompat) Training srevice initialize failed: Error: \
connect ECONNREFUSED 192.0.2.11:22
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1494:16) {
"""
RESUMED = """\
[2026-01-01 11:00:00] INFO (main) Start NNI manager
[2026-01-01 11:00:00] INFO (RemoteV3.remote) Starting remote training service...
[2026-01-01 11:00:09] INFO (RemoteV3.remote) Remote training service started
"""


def test_a_machine_that_cannot_be_used(logs, tmp_path):
    (logs / "nnimanager.log").write_text(REMOTE)
    assert explain_stop(tmp_path) == (
        "a machine of the trials cannot be used: connect ECONNREFUSED 192.0.2.11:22 "
        f"(see {logs / 'nnimanager.log'})"
    )


@pytest.mark.parametrize("text", ["", REPORTED, RESUMED, REMOTE + RESUMED])
def test_an_experiment_that_somebody_stopped(logs, tmp_path, text):
    (logs / "nnimanager.log").write_text(text)
    assert explain_stop(tmp_path) == ""


def test_a_resumed_experiment_fails_for_its_own_reason(logs, tmp_path):
    start = "[2026-01-01 11:00:00] INFO (main) Start NNI manager\n"
    other = REPORTED.replace("PathError", "SearchError")
    (logs / "nnimanager.log").write_text(start + REPORTED + start + other)
    assert explain_failure(tmp_path, ["x"]).startswith("SearchError: ")


def outcome(number, **what):
    entry = {"number": number, "generation": 0, "path": {"a": number}, "costs": {}, **what}
    return seal_record(entry)


@pytest.mark.parametrize("num_done", [0, 1])
def test_an_experiment_without_a_result_is_not_done(tmp_path, num_done):
    header = {"journal_version": 1, "settings": {"search": {"objective": "top1"}}}
    failed = [outcome(i, failed=f"reason {i % 5}") for i in range(8)]
    done = [outcome(9, metrics={"top1": 1.0})][:num_done]
    (tmp_path / "search.jsonl").write_bytes(b"".join([seal_record(header), *failed, *done]))
    line = explain_no_result(tmp_path)
    if num_done:
        assert line == ""
        return
    assert line == (
        "none of its 8 candidates has a result. Reasons: reason 0; reason 1; reason 2. "
        f"(see {tmp_path})"
    )


def test_an_experiment_without_a_journal_is_not_done(tmp_path):
    assert "has no results yet" in explain_no_result(tmp_path)
