import json
import socket

import pytest

from nni_spos.errors import ExperimentError
from nni_spos.experiment.manager import Manager


@pytest.fixture
def client(manager):
    return Manager(manager.port)


def test_status(client, manager):
    assert client.status() == ("RUNNING", [])
    manager.status = {"status": "ERROR", "errors": ["tuner may have crashed"]}
    assert client.status() == ("ERROR", ["tuner may have crashed"])
    manager.status = "INITIALIZING"
    assert client.status() == ("INITIALIZING", [])


def test_trial_jobs_are_read_from_json_within_json(client, manager):
    manager.add_job("abc", {"a": 3}, "SUCCEEDED", 7, {"default": 5.0, "path": {"a": 3}})
    manager.add_job("def", {"a": 4}, "RUNNING", 8)
    first, second = client.trial_jobs()
    assert (first.id, first.status, first.parameter_id) == ("abc", "SUCCEEDED", 7)
    assert first.parameters == {"a": 3}
    assert first.metrics == {"default": 5.0, "path": {"a": 3}}
    assert first.has_ended
    assert second.metrics is None
    assert not second.has_ended
    assert client.trial_job("def") == second
    assert client.trial_job("none") is None
    assert client.has_reported("abc")
    assert not client.has_reported("def")


def test_what_came_before_a_result_is_read_apart(client, manager):
    manager.intermediate["abc"] = {"problem": "no space"}
    assert client.intermediate_results("abc") == [{"problem": "no space"}]
    assert client.intermediate_results("def") == []
    assert not client.has_reported("abc")


def test_a_job_without_a_record_of_its_parameters(client, manager):
    manager.jobs["x"] = {"trialJobId": "x", "status": "WAITING", "hyperParameters": []}
    assert client.trial_job("x").parameters is None


def test_nan_in_a_result_survives(client, manager):
    manager.add_job("abc", {}, "SUCCEEDED", 7, {"default": float("nan")})
    assert str(client.trial_job("abc").metrics["default"]) == "nan"


def test_max_trial_number_keeps_the_rest_of_the_profile(client, manager):
    client.set_max_trial_number(12)
    [(path, profile)] = manager.puts
    assert path == "/api/v1/nni/experiment?update_type=MAX_TRIAL_NUM"
    assert profile["params"] == {"maxTrialNumber": 12, "trialConcurrency": 2}


def test_a_proxy_is_not_asked(client, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client.experiment()["id"] == "abcd"


def test_errors_name_the_port_and_the_cause(client, manager):
    manager.refusals = 1
    with pytest.raises(ExperimentError, match="refused GET /trial-jobs: 500"):
        client.trial_jobs()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ExperimentError, match=rf"port {port} cannot be reached.*refused"):
            Manager(port).status()


def test_errors_name_another_machine(manager):
    manager.close()
    elsewhere = Manager(manager.port, host="127.0.0.2")
    with pytest.raises(ExperimentError, match=rf"port {manager.port} of 127\.0\.0\.2 cannot"):
        elsewhere.status()


def test_files_of_the_log_folder(client, manager):
    manager.logs = {"x.json": b'{"a": [1]}', "x.bin": bytes(range(10))}
    assert client.read_log("x.json") == {"a": [1]}
    assert client.read_log("none.json") is None
    assert b"".join(client.download_log("x.bin", 10)) == bytes(range(10))
    assert b"".join(client.download_log("x.bin", 4)) == bytes(range(4)), "no more than expected"
    assert b"".join(client.download_log("x.bin", 99)) == bytes(range(10))


def test_another_server_is_not_taken_for_a_manager(client, manager):
    manager.profile = "<html>"
    with pytest.raises(ExperimentError, match="not an NNI manager"):
        client.experiment()


@pytest.mark.parametrize(
    ("channel", "url"),
    [
        ("ws://localhost:8080/tuner", "http://127.0.0.1:8080"),
        ("ws://localhost:8081/my/prefix/tuner", "http://127.0.0.1:8081/my/prefix"),
        ("http://localhost:8080/env/local-env/aBcD", "http://127.0.0.1:8080"),
        ("http://localhost:8080/p/env/local-env/aBcD", "http://127.0.0.1:8080/p"),
        ("ws://192.0.2.10:8080/platform/remote/1", "http://192.0.2.10:8080"),
        ("ws://manager.example:8080/p/platform/remote/1", "http://manager.example:8080/p"),
    ],
)
def test_the_manager_is_found_by_a_channel(channel, url):
    assert Manager.from_channel(channel).url == url


def test_a_channel_without_a_port():
    with pytest.raises(ExperimentError, match="without a port"):
        Manager.from_channel("ws://localhost/tuner")


DEEP = "[" * 5000


@pytest.mark.parametrize(
    ("value", "metrics"),
    [
        (DEEP, {"default": DEEP}),
        ("good", {"default": "good"}),
        ("", {"default": ""}),
        ("9" * 5000, {"default": "9" * 5000}),  # more digits than Python reads
        ('{"default": 5.0, "default"', {"default": '{"default": 5.0, "default"'}),
        (10**400, 10**400),
        (None, None),
        ([[1]], [[1]]),
        ('{"default": 5.0}', {"default": 5.0}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_result_does_not_hide_the_other_trials(client, manager, value, metrics):
    manager.add_job("abc", {"a": 3}, "SUCCEEDED", 7)
    manager.jobs["abc"]["finalMetricData"] = [{"data": json.dumps(json.dumps(value))}]
    manager.add_job("def", {"a": 4}, "SUCCEEDED", 8, {"default": 5.0})
    first, second = client.trial_jobs()
    assert first.metrics == metrics
    assert second.metrics == {"default": 5.0}
    assert client.trial_job("abc") == first


def test_what_came_before_a_result_may_be_anything(client, manager):
    manager.intermediate["abc"] = DEEP
    assert client.intermediate_results("abc") == [DEEP]
