"""A worker's parts in this process, with a stand-in for the supernet."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import warnings
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from trained_recipes import write_untrained
from waiting import wait_until
from worker_requests import Call, score_with_worker

from nni_spos.errors import (
    CheckpointError,
    EvaluatorError,
    FailedPathError,
    PathError,
    ScoringWarning,
)
from nni_spos.files.digests import DIGITS
from nni_spos.recipe.recipe import load_recipe
from nni_spos.worker import client as worker_client
from nni_spos.worker import patience as worker_patience
from nni_spos.worker import reception as worker_reception
from nni_spos.worker import service as worker_module
from nni_spos.worker.client import checkpoint_stamp, connect, identify, worker_folder
from nni_spos.worker.meeting_place import MAX_SOCKET_NAME, meeting_place
from nni_spos.worker.patience import HEARTBEAT
from nni_spos.worker.place import WorkerFolder
from nni_spos.worker.reception import SUFFIX, Endpoint, Reception
from nni_spos.worker.service import Worker, WorkerContext, evaluate

EVER = 60.0


class Supernet:
    """Scores the path {"a": n} with n; keeps which paths were scored together."""

    def __init__(self):
        self.calls: list[list[int]] = []

    def score_many(self, paths, progress):
        self.calls.append([path["a"] for path in paths])
        if any(path["a"] < 0 for path in paths):
            raise PathError("there is no such path.")
        return [{"top1": float(path["a"]), "loss": 0.1} for path in paths]


@pytest.fixture
def place(tmp_path):
    return WorkerFolder(tmp_path / "output", tmp_path / "private" / "key").make()


@pytest.fixture
def endpoint(place):
    endpoint = Endpoint(place)
    yield endpoint
    endpoint.remove()


@pytest.fixture
def reception(endpoint):
    reception = Reception(endpoint)
    reception.open()
    return reception


@pytest.fixture
def supernet():
    return Supernet()


@pytest.fixture
def worker(reception, supernet):
    return Worker(reception, supernet.score_many)


@pytest.fixture
def trials(place, reception):
    """Connect so many trials."""
    connected = []

    def connect_trials(count):
        before = reception.num_connected
        new = [connect(place) for _ in range(count)]
        connected.extend(new)
        wait_until(lambda: reception.num_connected == before + count)
        return new

    yield connect_trials
    for trial in connected:
        trial.close()


def ask(trial, number, manager=None):
    trial.send_bytes(json.dumps({"path": {"a": number}, "manager": manager}).encode())


def answer(trial):
    while True:
        assert trial.poll(EVER), "waited in vain"
        message = json.loads(trial.recv_bytes())
        if HEARTBEAT not in message:
            return message


def test_trials_that_are_there_together_are_one_population(trials, worker, supernet, monkeypatch):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    connected = trials(3)
    for number, trial in enumerate(connected):
        ask(trial, number)
    worker.step()
    assert [sorted(call) for call in supernet.calls] == [[0, 1, 2]]
    found = [answer(trial) for trial in connected]
    assert [x["results"] for x in found] == [{"top1": float(n), "loss": 0.1} for n in range(3)]
    assert all(x["memory"]["peak_memory_bytes"] > 1e6 for x in found)


def test_nobody_waits_for_a_trial_that_does_not_ask(trials, worker, supernet):
    first, second = trials(2)
    ask(first, 1)
    worker.step()
    ask(second, 2)
    worker.step()
    assert supernet.calls == [[1], [2]]
    assert answer(first)["results"]["top1"] == 1.0
    assert answer(second)["results"]["top1"] == 2.0


def test_after_a_population_the_trials_that_replace_it_are_waited_for(
    trials, reception, worker, supernet, monkeypatch
):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    before = trials(2)
    for number, trial in enumerate(before):
        ask(trial, number)
    worker.step()
    for trial in before:
        trial.close()
    wait_until(lambda: reception.num_connected == 0)
    (first,) = trials(1)
    ask(first, 2)
    step = Call(worker.step)
    (second,) = trials(1)
    ask(second, 3)
    step.result()
    assert [sorted(call) for call in supernet.calls] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("longest_s", "expected"), [(0.0, 0.05), (0.4, 0.05), (5.0, 0.5), (20.0, 2.0), (600.0, 2.0)]
)
def test_it_is_a_tenth_of_an_evaluation_that_is_waited(
    reception, supernet, monkeypatch, longest_s, expected
):
    waited = []
    monkeypatch.setattr(reception, "gather", lambda most, quiet_s: waited.append(quiet_s) or [])
    worker = Worker(reception, supernet.score_many)
    worker._longest_s = longest_s
    worker.step()
    assert waited == [expected]


def test_a_path_that_two_trials_ask_for_is_evaluated_once(trials, worker, supernet, monkeypatch):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    connected = trials(3)
    for number, trial in zip((5, 6, 5), connected, strict=True):
        ask(trial, number)
    worker.step()
    assert [sorted(call) for call in supernet.calls] == [[5, 6]]
    assert [answer(trial)["results"]["top1"] for trial in connected] == [5.0, 6.0, 5.0]


def test_paths_that_differ_in_the_type_of_a_choice_are_two(trials, worker, supernet, monkeypatch):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    connected = trials(2)
    for number, trial in zip((1, 1.0), connected, strict=True):
        ask(trial, number)
    worker.step()
    assert [sorted(map(repr, call)) for call in supernet.calls] == [["1", "1.0"]]


def test_only_the_bad_path_of_a_population_fails(trials, worker, supernet, monkeypatch):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    connected = trials(3)
    for number, trial in zip((1, -1, 2), connected, strict=True):
        ask(trial, number)
    worker.step()
    found = [answer(trial) for trial in connected]
    assert found[1]["error"] == "PathError: there is no such path."
    assert not {"results", "failed"} & set(found[1])
    assert [found[0]["results"]["top1"], found[2]["results"]["top1"]] == [1.0, 2.0]
    assert sorted(map(sorted, supernet.calls)) == [[-1], [-1, 1, 2], [1], [2]]


def test_what_does_not_fit_into_memory_together_is_evaluated_one_by_one(capsys):
    def score_many(paths, progress):
        if len(paths) > 1:
            raise RuntimeError("CUDA out of memory.")
        return [{"top1": float(paths[0]["a"])}]

    assert evaluate(score_many, [{"a": 1}, {"a": 2}], print) == [
        {"results": {"top1": 1.0}},
        {"results": {"top1": 2.0}},
    ]
    assert "2 paths fail together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "kind", "text"),
    [
        (RuntimeError("mat1 and mat2"), "failed", "RuntimeError: mat1 and mat2"),
        (FailedPathError("ValueError: axis"), "failed", "ValueError: axis"),
        (OSError(28, "No space left on device"), "error", "OSError: [Errno 28] No space left on"),
        (MemoryError(), "error", "there is too little memory for the path '-1' (MemoryError)"),
        (RuntimeError("CUDA out of memory."), "error", "there is too little memory for the path"),
        (KeyError("ours"), "error", "KeyError: 'ours'"),
    ],
    ids=repr,
)
def test_what_a_path_does_is_told_from_trouble(problem, kind, text):
    def score_many(paths, progress):
        if any(path["a"] < 0 for path in paths):
            raise problem
        return [{"top1": float(path["a"])} for path in paths]

    bad, good = evaluate(score_many, [{"a": -1}, {"a": 2}], print)
    assert list(bad) == [kind]
    assert bad[kind].startswith(text)
    assert good == {"results": {"top1": 2.0}}


def test_results_that_are_not_finite_are_what_the_path_does():
    (found,) = evaluate(lambda paths, progress: [{"top1": float("nan")}], [{"a": 1}], print)
    assert found["failed"].startswith("NotFiniteError: ")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"failed": "ValueError: axis"}, FailedPathError),
        ({"error": "MemoryError"}, EvaluatorError),
        ({"unusable": "DataError: no images"}, EvaluatorError),
    ],
)
def test_what_a_trial_is_told_is_what_it_raises(monkeypatch, post, answer, error):
    monkeypatch.setattr("nni_spos.worker.client._open", lambda *_: "connection")
    monkeypatch.setattr("nni_spos.worker.client._ask", lambda *_: answer)
    with pytest.raises(error) as raised:
        score_with_worker(post.recipe, {"a": 1})
    assert raised.type is error
    assert str(raised.value) == next(iter(answer.values()))


def test_a_log_on_a_full_disk_is_no_obstacle(trials, worker, monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr("sys.stderr", Full())
    (trial,) = trials(1)
    ask(trial, 1)
    worker.step()
    assert answer(trial)["results"]["top1"] == 1.0


def test_a_worker_hands_its_warnings_to_every_trial(trials, worker, supernet, monkeypatch):
    score_many = supernet.score_many

    def warns(paths, progress):
        if not supernet.calls:
            warnings.warn("it is noisy", ScoringWarning, stacklevel=1)
        return score_many(paths, progress)

    monkeypatch.setattr(worker, "_score_many", warns)
    for number in (1, 2):
        (trial,) = trials(1)
        ask(trial, number)
        worker.step()
        assert answer(trial)["notes"] == ["it is noisy"]


def test_a_lost_gpu_ends_the_worker():
    def score_many(paths, progress):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        evaluate(score_many, [{"a": 1}, {"a": 2}], print)


def test_the_question_of_a_trial_that_died_is_dropped(trials, reception, worker, supernet):
    first, second = trials(2)
    ask(first, 1)
    first.close()
    wait_until(lambda: reception.num_connected == 1)
    ask(second, 2)
    while not supernet.calls:
        worker.step()
    assert supernet.calls == [[2]]
    assert answer(second)["results"]["top1"] == 2.0


def test_a_trial_that_dies_during_the_evaluation_disturbs_nobody(
    trials, reception, worker, supernet, monkeypatch
):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    first, second = trials(2)

    def score_many(paths, progress):
        first.close()
        wait_until(lambda: reception.num_connected == 1)
        return supernet.score_many(paths, progress)

    monkeypatch.setattr(worker, "_score_many", score_many)
    ask(first, 1)
    ask(second, 2)
    worker.step()
    assert answer(second)["results"]["top1"] == 2.0


def test_a_wrong_key_is_refused_and_does_no_harm(place, endpoint, trials, worker, capfd):
    with pytest.raises(AuthenticationError):
        Client(endpoint.listener.address, authkey=b"guessed")
    wait_until(lambda: "refused: AuthenticationError" in capfd.readouterr().err)
    (trial,) = trials(1)
    ask(trial, 1)
    worker.step()
    assert answer(trial)["results"]["top1"] == 1.0


def test_a_trial_does_not_trust_one_that_does_not_know_the_key(place, endpoint):
    content = json.loads(place.address.read_text())
    with Listener(str(place.private / "another"), "AF_UNIX", authkey=b"guessed") as listener:

        def serve():
            with pytest.raises(AuthenticationError):
                listener.accept()

        thread = threading.Thread(target=serve)
        thread.start()
        place.address.write_text(json.dumps({**content, "address": listener.address}))
        assert connect(place) is None
        thread.join(EVER)
        assert not thread.is_alive()


def test_one_that_connects_and_says_nothing_blocks_nobody(endpoint, trials, worker):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(endpoint.listener.address)
        (trial,) = trials(1)
        ask(trial, 1)
        worker.step()
        assert answer(trial)["results"]["top1"] == 1.0


@pytest.mark.parametrize("question", [b"{", b"[]", b"null", b'{"path": {"a": 1}}', b"\xff\xfe"])
def test_a_question_that_cannot_be_understood_is_answered(trials, worker, question):
    bad, good = trials(2)
    bad.send_bytes(question)
    assert "cannot be understood" in answer(bad)["error"]
    ask(good, 1)
    worker.step()
    assert answer(good)["results"]["top1"] == 1.0


def test_a_trial_that_waits_hears_how_far_it_is(trials, reception, worker, supernet, monkeypatch):
    heard = []

    def score_many(paths, progress):
        for share in (0.25, 0.75):
            progress(share)
            wait_until(lambda share=share: hear_share() == share)
        return supernet.score_many(paths, progress)

    def hear_share():
        assert waiting.poll(EVER), "waited in vain"
        heard.append(json.loads(waiting.recv_bytes())[HEARTBEAT])
        return heard[-1]["share"]

    monkeypatch.setattr(worker_reception, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(worker, "_score_many", score_many)
    waiting, silent = trials(2)
    ask(waiting, 1)
    worker.step()
    assert answer(waiting)["results"]["top1"] == 1.0
    first, last = heard[0], heard[-1]
    assert (first["share"], last["share"]) == (0.0, 0.75) or first["share"] == 0.25
    assert last["signs"] > 0
    assert not silent.poll(0.1)  # a trial that has not asked yet, or has its answer, hears nothing
    assert not waiting.poll(0.1)


def test_a_trial_ends_a_worker_that_lives_and_does_nothing(
    place, reception, worker, supernet, monkeypatch
):
    goes_on, ended = threading.Event(), []

    def score_many(paths, progress):
        goes_on.wait(EVER)
        return supernet.score_many(paths, progress)

    def end_worker(pid, folder):
        ended.append((pid, folder))
        return True

    monkeypatch.setattr(worker, "_score_many", score_many)
    monkeypatch.setattr(worker_patience, "STALL_S", 2.5)
    monkeypatch.setattr(worker_client, "end_worker", end_worker)
    step = Call(worker.step)
    question = json.dumps({"path": {"a": 1}, "manager": None}).encode()
    assert worker_client._ask(place, worker_client._dial(place), question) is None
    assert ended == [(os.getpid(), str(place.private))]
    assert "is ended by a trial: it has done nothing for 2 s, with 0% of" in place.log.read_text()
    goes_on.set()
    step.result()
    step = Call(worker.step)
    found = worker_client._ask(place, worker_client._dial(place), question)
    assert found["results"]["top1"] == 1.0
    step.result()


def test_a_trial_that_is_stopped_keeps_no_other_waiting(trials, reception, worker, monkeypatch):
    monkeypatch.setattr(worker_module, "QUIET_S", (EVER, EVER))
    stopped, other = trials(2)
    ask(stopped, 1)
    ask(other, 2)
    wait_until(lambda: sum(trial._waits for trial in reception._trials) == 2)
    beats = threading.Thread(
        target=lambda: [t.beat({"share": 0.5}) for t in reception._trials for _ in range(5_000)]
    )
    beats.start()
    found = Call(answer, other)
    beats.join(EVER)
    assert not beats.is_alive()
    worker.step()
    assert found.result()["results"]["top1"] == 2.0
    assert answer(stopped)["results"]["top1"] == 1.0


def test_a_question_is_not_read_beyond_its_greatest_length(trials, worker, monkeypatch):
    monkeypatch.setattr(worker_reception, "MAX_MESSAGE", 100)
    long, good = trials(2)
    long.send_bytes(b"x" * 101)
    with pytest.raises((EOFError, ConnectionError)):
        answer(long)
    ask(good, 1)
    worker.step()
    assert answer(good)["results"]["top1"] == 1.0


def test_only_this_user_can_reach_a_worker(place, endpoint):
    assert stat.S_IMODE(place.address.stat().st_mode) == 0o600
    assert json.loads(place.address.read_text())["key"] == endpoint.key.hex()
    assert len(endpoint.key) == 32


def test_a_socket_never_has_too_long_a_name(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert meeting_place().parent == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    longest = meeting_place() / ("f" * DIGITS) / f"01234567{SUFFIX}"
    assert longest.is_relative_to("/var/folders")
    assert len(os.fsencode(longest)) <= MAX_SOCKET_NAME


def test_a_folder_that_cannot_have_sockets_is_no_obstacle(place, monkeypatch):
    def listen(address, *arguments, **options):
        if str(address).startswith(str(place.private)):
            raise PermissionError("Operation not permitted")
        return Listener(address, *arguments, **options)

    monkeypatch.setattr(worker_reception, "Listener", listen)
    endpoint = Endpoint(place)
    assert endpoint.listener.address[0] == "127.0.0.1"
    reception = Reception(endpoint)
    reception.open()
    with connect(place) as connection:
        assert connection is not None
    endpoint.remove()


def test_on_a_system_without_sockets_in_files_there_is_a_port_on_this_machine(place, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    endpoint = Endpoint(place)
    assert endpoint.listener.address[0] == "127.0.0.1"
    reception = Reception(endpoint)
    reception.open()
    with connect(place) as connection:
        ask(connection, 7)
        Worker(reception, Supernet().score_many).step()
        assert answer(connection)["results"]["top1"] == 7.0


def test_a_worker_takes_the_place_of_another(place, endpoint):
    left = Path(endpoint.listener.address)
    assert endpoint.is_published()
    place.address.write_text(json.dumps({"address": str(place.path / "kept"), "key": ""}))
    (place.path / "kept").write_text("a file of somebody's, and no socket")
    second = Endpoint(place)
    assert not endpoint.is_published()
    assert second.is_published()
    endpoint.remove()
    assert not left.exists()
    assert (place.path / "kept").exists()
    assert second.is_published()
    second.remove()
    assert not place.address.exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"address": 1, "key": "00"}', '{"address": "nowhere", "key": "0"}'],
)
def test_a_damaged_address_is_no_worker(place, reception, content):
    with connect(place) as connection:
        assert connection is not None
    place.address.write_text(content)
    assert connect(place) is None


@pytest.fixture
def post(tmp_path, endpoint, reception):
    recipe = write_untrained(tmp_path, evaluation={"worker_idle_s": 3600})
    recipe.checkpoint.write_bytes(b"weights")
    return WorkerContext(recipe, checkpoint_stamp(recipe), endpoint, reception)


def test_a_worker_without_a_reason_goes_on(post):
    assert post.reason_to_end() is None


def test_a_worker_whose_place_is_taken_ends(post, place):
    place.address.write_text("{}")
    assert post.reason_to_end() == "another worker has its place"
    place.address.unlink()
    assert post.reason_to_end() == "another worker has its place"


def test_a_worker_whose_checkpoint_is_replaced_or_gone_ends(post):
    checkpoint = post.recipe.checkpoint
    new = checkpoint.with_name("new")
    new.write_bytes(b"weighed")  # of the same size
    os.replace(new, checkpoint)
    assert post.reason_to_end() == "the checkpoint was replaced"
    checkpoint.unlink()
    assert post.reason_to_end() == "the checkpoint was replaced"


def test_a_worker_ends_when_no_trial_is_there_for_long(post, reception, trials):
    reception._last_use -= 3590
    assert post.reason_to_end() is None
    reception._last_use -= 10
    assert post.reason_to_end() == "there was no trial for 3600 seconds"
    trials(1)
    reception._last_use -= 3600
    assert post.reason_to_end() is None


def test_a_worker_ends_when_all_managers_are_gone(post, trials, worker):
    alive = os.getpid()
    with psutil.Popen([sys.executable, "-c", ""]) as ended:
        gone = ended.pid
    (trial,) = trials(1)
    ask(trial, 1, manager=gone)
    worker.step()
    assert post.reason_to_end() == "the experiments are over"
    ask(trial, 2, manager=alive)
    worker.step()
    assert post.reason_to_end() is None


@pytest.mark.skipif(not hasattr(psutil, "LINUX") or not psutil.LINUX, reason="how Linux counts")
@pytest.mark.parametrize("step_s", [-86400.0, -1.5, 1.5, 86400.0])
def test_a_clock_that_is_set_ends_no_worker(post, reception, monkeypatch, step_s):
    reception.note_manager(os.getppid())
    boot_time = psutil._pslinux.boot_time()
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time + step_s)
    monkeypatch.setattr(psutil._pslinux, "BOOT_TIME", boot_time + step_s, raising=False)
    assert post.reason_to_end() is None
    reception.note_manager(os.getppid())
    assert post.reason_to_end() is None


@pytest.mark.parametrize("manager", [0, -1, 1 << 40, True, 1.5, "1", [1, 2.0]])
def test_a_manager_that_is_no_process_is_a_question_that_cannot_be_understood(
    trials, worker, manager
):
    bad, good = trials(2)
    ask(bad, 1, manager=manager)
    assert "is not the number of a process" in answer(bad)["error"]
    ask(good, 1, manager=os.getpid())
    worker.step()
    assert answer(good)["results"]["top1"] == 1.0


def test_the_identity_is_everything_that_scores_depend_on(post, tmp_path, monkeypatch):
    recipe = post.recipe
    found = {worker_folder(recipe, identify(recipe))}

    def is_new(recipe):
        place = worker_folder(recipe, identify(recipe))
        before = place in found
        found.add(place)
        return not before

    assert not is_new(load_recipe(recipe.file))
    for section, changes in [
        ("evaluation", {"seed": 1}),
        ("evaluation", {"recalibrate": False}),
        ("data", {"split_seed": 1}),
        ("supernet", {"channels_last": False}),
    ]:
        settings = dataclasses.replace(getattr(recipe, section), **changes)
        assert is_new(dataclasses.replace(recipe, **{section: settings})), changes
    for changes in ({"evaluator": "worker"}, {"worker_idle_s": 5}):
        settings = dataclasses.replace(recipe.evaluation, **changes)
        assert not is_new(dataclasses.replace(recipe, evaluation=settings))
    assert not is_new(recipe.with_search({"seed": 1}, "test"))

    os.utime(recipe.checkpoint, ns=(1, 1))
    assert is_new(recipe)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert is_new(recipe)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert is_new(recipe)


def test_the_code_of_a_users_space_is_part_of_the_identity(post):
    space = dataclasses.replace(post.recipe.space, name="mine:Mine")
    recipe = dataclasses.replace(post.recipe, space=space)
    before = identify(recipe)
    assert identify(recipe) == before
    (recipe.file.parent / "mine.py").write_text("Mine = None")
    assert identify(recipe) != before


def test_without_a_supernet_nothing_is_started(post):
    post.recipe.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="nni-spos train RECIPE"):
        score_with_worker(post.recipe, {"a": 1})
    assert not (post.recipe.output / "workers").exists()


def test_a_trial_for_which_there_is_no_thread_is_turned_away_and_the_next_one_served(
    place, reception, trials, worker, monkeypatch
):
    class Refused(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(worker_reception, "threading", SimpleNamespace(Thread=Refused))
        assert connect(place) is None
    (trial,) = trials(1)
    ask(trial, 1)
    worker.step()
    assert answer(trial)["results"]["top1"] == 1.0


def test_a_worker_ends_with_any_of_its_threads(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    problem = MemoryError("no room")
    worker_module._end_with_thread(threading.ExceptHookArgs((MemoryError, problem, None, None)))
    assert ended == [1]
    assert "ends with its thread: MemoryError: no room" in capsys.readouterr().err


def test_a_worker_ends_if_a_thread_does_not_begin(place, post, reception, monkeypatch):
    began = threading.Event()

    class Late(threading.Thread):
        def start(self):
            began.wait()
            super().start()

    monkeypatch.setattr(worker_reception, "START_S", 0.2)
    monkeypatch.setattr(
        worker_reception, "threading", SimpleNamespace(Thread=Late, Lock=threading.Lock)
    )
    asking = threading.Thread(target=connect, args=(place,))
    asking.start()
    assert post.reason_to_end() is None
    wait_until(lambda: "a thread of it does not begin" in (post.reason_to_end() or ""))
    began.set()
    asking.join()
    wait_until(lambda: post.reason_to_end() is None)
