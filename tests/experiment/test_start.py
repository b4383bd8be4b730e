"""What can be tested without NNI; the rest is in tests/end_to_end."""

import os
import socket
from types import SimpleNamespace

import psutil
import pytest

from nni_spos.errors import ExperimentError, RecipeError
from nni_spos.experiment import start as module


@pytest.fixture
def port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_environment_keeps_what_was_there(monkeypatch):
    monkeypatch.setenv("NODE_OPTIONS", "--max-http-header-size=999")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = module.nnictl_environment()
    assert environment["NODE_OPTIONS"].startswith("--max-http-header-size=999 --require ")
    for file in (module.LOOPBACK, module.PATIENCE):
        assert file.is_file()
        assert str(file) in environment["NODE_OPTIONS"]
    assert environment["NO_PROXY"] == "example.org,localhost,127.0.0.1"
    assert environment["PYTHONWARNINGS"] == "ignore"
    public = module.nnictl_environment(public=True)["NODE_OPTIONS"]
    assert public == f'--max-http-header-size=999 --require "{module.PATIENCE}"'


def test_ports(port):
    with pytest.raises(ExperimentError, match=rf"port {port} is in use.*--port {port + 1}"):
        module._check_port(port)
    with pytest.raises(ExperimentError, match="70000 is not a port"):
        module._check_port(70000)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free = unused.getsockname()[1]
    module._check_port(free)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "Traceback (most recent call last):\n  x\nValueError: no such thing\n",
            "ValueError: no such thing",
        ),
        ("\x1b[31mERROR: Id abc not exist!\x1b[0m\nINFO: bye\n", "ERROR: Id abc not exist!"),
        ("something else\n", "something else"),
        ("", "no message"),
    ],
)
def test_the_reason_in_the_output_of_nnictl(output, reason):
    assert module._reason(output) == reason


def test_a_slow_manager_is_started_once_more(monkeypatch):
    calls = []

    def nnictl(arguments, environment):
        calls.append(arguments)
        if len(calls) == 1:
            raise ExperimentError("nnictl create failed: requests.exceptions.ConnectionError: x")

    monkeypatch.setattr(module, "_nnictl", nnictl)
    module._launch(["create"], {})
    assert calls == [["create"]] * 2

    def broken(arguments, environment):
        calls.append(arguments)
        raise ExperimentError("nnictl create failed: ValueError: x")

    monkeypatch.setattr(module, "_nnictl", broken)
    with pytest.raises(ExperimentError, match="ValueError"):
        module._launch(["create"], {})
    assert len(calls) == 3


def test_a_wrong_configuration_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_run", lambda *arguments: pytest.fail("started"))
    with pytest.raises(RecipeError, match="no such file"):
        module.start(tmp_path / "none.yml")


def test_only_the_process_of_an_experiment_counts_as_its_manager(monkeypatch):
    monkeypatch.setattr(module, "read_manifest", lambda: {"abc": {"pid": os.getpid()}})
    assert not module.is_running("abc"), "this process is none of NNI's"
    module.stop("abc")
    assert psutil.pid_exists(os.getpid())
    assert not module.is_running("unknown")


def test_a_running_or_unknown_experiment_is_not_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ExperimentError, match="'abc' is neither"):
        module.resume("abc")
    (tmp_path / "nni-experiments" / "abc").mkdir(parents=True)
    monkeypatch.setattr(module, "is_running", lambda experiment_id: True)
    with pytest.raises(ExperimentError, match="is running; stop it first: nnictl stop abc"):
        module.resume("abc")


@pytest.mark.parametrize(("reading", "pause"), [(0.01, 1.0), (0.5, 4.5)])
def test_a_large_journal_is_read_less_often(monkeypatch, tmp_path, reading, pause):
    now, pauses = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=pauses.append)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_show", lambda bar, folder: now.append(now.pop() + reading))
    statuses = iter(["RUNNING", "DONE"])
    manager = SimpleNamespace(status=lambda: (next(statuses), []))
    assert module._follow(manager, "abcd", tmp_path, 10, print) == ("DONE", [])
    assert pauses == [pytest.approx(pause)]
