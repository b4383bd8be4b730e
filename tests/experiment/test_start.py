"""What can be tested without NNI; the rest is in tests/end_to_end."""

import inspect
import os
import socket
import stat
from types import SimpleNamespace

import psutil
import pytest
import requests
from nni.experiment import launcher

from nni_spos.errors import ExperimentError, RecipeError
from nni_spos.experiment import nnictl
from nni_spos.experiment import start as module
from nni_spos.experiment.manager_environment import OPEN_TO_USERS
from nni_spos.experiment.start_locks import experiment_lock, port_lock


@pytest.fixture
def port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_ports(port):
    with pytest.raises(ExperimentError, match=rf"port {port} is in use.*--port {port + 1}"):
        module._check_port(port)
    with pytest.raises(ExperimentError, match="from 1024 to 65535, got 70000"):
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


def test_a_slow_manager_is_waited_for(manager, monkeypatch):
    """Its first answers are none, or no JSON."""
    seconds = []
    monkeypatch.setattr(launcher, "time", SimpleNamespace(sleep=seconds.append))
    manager.refusals = nnictl.PATIENCE_S
    nnictl._check_manager(manager.port)
    assert sum(seconds) == nnictl.PATIENCE_S
    manager.refusals = nnictl.PATIENCE_S + 1
    with pytest.raises(requests.HTTPError):
        nnictl._check_manager(manager.port)


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
    with pytest.raises(ExperimentError, match=r"is running\. Stop it first: nnictl stop abc"):
        module.resume("abc")


@pytest.mark.parametrize(("reading", "pause"), [(0.01, 1.0), (0.5, 4.5)])
def test_a_large_journal_is_read_less_often(monkeypatch, tmp_path, reading, pause):
    now, pauses = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=pauses.append)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_show", lambda bar, folder: now.append(now.pop() + reading))
    monkeypatch.setattr(module, "_manager_process", lambda experiment_id: psutil.Process())
    statuses = iter(["RUNNING", "DONE"])
    manager = SimpleNamespace(status=lambda: (next(statuses), []))
    assert module._follow(manager, "abcd", tmp_path, 10, print) == ("DONE", [])
    assert pauses == [pytest.approx(pause)]


def test_who_answers_in_the_place_of_a_manager_that_is_gone_is_not_believed(monkeypatch, tmp_path):
    manager = SimpleNamespace(status=lambda: ("DONE", []))
    monkeypatch.setattr(module, "_manager_process", lambda experiment_id: psutil.Process())
    assert module._follow(manager, "abcd", tmp_path, 10, print) == ("DONE", [])
    found = [None, psutil.Process()]
    monkeypatch.setattr(module, "_manager_process", lambda experiment_id: found.pop(0))
    assert module._follow(manager, "abcd", tmp_path, 10, print) == ("DONE", []), (
        "the list was being written"
    )
    monkeypatch.setattr(module, "LIST_TIMEOUT", 0.0)
    monkeypatch.setattr(module, "_manager_process", lambda experiment_id: None)
    assert module._follow(manager, "abcd", tmp_path, 10, print) == ("STOPPED", [])


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (
            "INFO: Creating experiment, Experiment ID: \x1b[36mabcd1234\x1b[0m\nINFO: x\n",
            "abcd1234",
        ),
        ("INFO: Creating experiment\n", None),
    ],
)
def test_the_id_in_the_output_of_nnictl(output, found):
    assert module._created(output) == found
    assert "Creating experiment, Experiment ID: ${CYAN}%s" in inspect.getsource(launcher)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "nni-experiments" / "abc").mkdir(parents=True)
    return tmp_path


def test_a_port_is_for_one_start(home, port):
    with port_lock(port):
        refused = pytest.raises(ExperimentError, match=f"port {port} is in use.*--port {port + 1}")
        with refused, port_lock(port):
            pytest.fail("two have it")
        with port_lock(port + 1):
            pass
    with port_lock(port):
        pass


def test_a_second_start_touches_nothing(home, monkeypatch, port):
    """It neither asks who is there, nor stops what runs on the port."""
    recipe = SimpleNamespace(search=SimpleNamespace(sensitivity=False))
    checked = SimpleNamespace(warnings=(), config={"trainingService": {"platform": "local"}},
                              file=home / "spos.yml", num_candidates=1, recipe=recipe)  # fmt: skip
    monkeypatch.setattr(module, "check_config", lambda file: checked)
    runs = []
    monkeypatch.setattr(module, "_run", lambda *arguments: runs.append(arguments))
    with port_lock(port), pytest.raises(ExperimentError, match="in use by another"):
        module.start(home / "spos.yml", module.ManagerOptions(port))
    assert not runs
    module.start(home / "spos.yml", module.ManagerOptions(port))
    assert len(runs) == 1


def test_an_experiment_is_resumed_once(home, monkeypatch, port):
    runs = []
    monkeypatch.setattr(module, "_run", lambda *arguments: runs.append(arguments))
    with experiment_lock("abc"), pytest.raises(ExperimentError, match="abc is being resumed"):
        module.resume("abc", module.ManagerOptions(port))
    assert not runs
    with experiment_lock("another"):
        module.resume("abc", module.ManagerOptions(port))
    assert len(runs) == 1


@pytest.mark.parametrize("kind", ["link", "file", "shared"])
def test_locks_lie_where_nobody_else_can_write(home, tmp_path, port, kind):
    locks = home / "nni-experiments" / ".locks"
    with port_lock(port):
        assert stat.S_IMODE(locks.stat().st_mode) == 0o700
    for file in locks.iterdir():
        file.unlink()
    locks.rmdir()
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        locks.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        locks.touch()
    else:
        locks.mkdir()
        locks.chmod(0o777)
    with pytest.raises(ExperimentError, match="nobody else can write"), port_lock(port):
        pytest.fail("took it")
    assert not (tmp_path / "elsewhere").exists() or not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("known", [True, False])
def test_where_users_cannot_be_told_apart_start_says_so(home, monkeypatch, known):
    def nnictl(arguments, environment):
        raise ExperimentError("enough")

    monkeypatch.setattr(module, "knows_users", lambda: known)
    monkeypatch.setattr(module, "_nnictl", nnictl)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        free = unused.getsockname()[1]
    lines = []
    for public in (False, True):
        with pytest.raises(ExperimentError, match="enough"):
            module._run(["create"], None, module.ManagerOptions(free, public), 1, lines.append)
    assert lines == ([] if known else [f"warning: {OPEN_TO_USERS}"])
