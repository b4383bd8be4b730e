"""A real experiment on a machine with other users, and commands that get in each other's way."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from second_user import begin_as_another_user, needs_root
from test_nnictl import assert_same_search
from waiting import PATIENCE, wait_until

from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.search.results import load_results

pytestmark = pytest.mark.nni

RUN = """
import signal, sys
from nni_spos.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
sys.exit(main(sys.argv[1:]))
"""


def run(study, *arguments):
    # Whoever started the tests with nohup lets them, and so us, ignore the end of the terminal.
    heed = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RUN, *map(str, arguments)],
        cwd=study.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )


def request(port, method, path, content=None, host="127.0.0.1"):
    """Return the status of an answer, 0 without one."""
    data = None if content is None else json.dumps(content).encode()
    asked = urllib.request.Request(
        f"http://{host}:{port}{path}", data, {"Content-Type": "application/json"}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as problem:
        return problem.code
    except OSError:
        return 0


API = "/api/v1/nni"


def attack(port, config, seconds):
    """What another user may try; return the number of tries, and what was answered."""
    num_tries, answers, end = 0, [], time.monotonic() + seconds
    metric = {
        "type": "metric",
        "metric": json.dumps({"type": "FINAL", "value": "99", "sequence": 0}),
    }
    while time.monotonic() < end:
        for host in ("127.0.0.1", "[::1]", "localhost"):
            for method, path, content in (
                ("GET", f"{API}/experiment", None),
                ("POST", f"{API}/experiment", config),
                ("PUT", f"{API}/experiment?update_type=SEARCH_SPACE", {"params": config}),
                ("PUT", "/env/_any/any", metric),
                ("GET", "/logs/nnimanager.log", None),
                ("DELETE", f"{API}/experiment", None),
            ):
                num_tries += 1
                if status := request(port, method, path, content, host):
                    answers.append((host, method, path, status))
        time.sleep(0.02)
    return num_tries, answers


@needs_root
def test_another_user_reaches_nothing(study):
    study.write(concurrency=2)
    forged = study.folder / "forged"
    content = {"trialCommand": f"touch {forged}", "trialConcurrency": 9, "searchSpace": {},
               "maxTrialNumber": 1, "trainingService": {"platform": "local"}}  # fmt: skip
    results = []

    def own_requests(line):
        if "web page" not in line:
            return
        # Of its own user, a second configuration is refused, and the search goes on.
        for host in ("127.0.0.1", "[::1]"):
            asked = [("GET", f"{API}/experiment", None), ("POST", f"{API}/experiment", content),
                     ("PUT", f"{API}/experiment?update_type=SEARCH_SPACE", {"params": content}),
                     ("GET", "/oview", None)]  # fmt: skip
            results.append([request(study.port, *what, host) for what in asked])

    end = begin_as_another_user(attack, study.port, content, 25)
    result = start(study.config, ManagerOptions(port=study.port), report=own_requests)
    num_tries, answers = end()
    assert num_tries > 100
    assert answers == []
    assert results == [[200, 409, 409, 200]] * 2
    assert result.status == "DONE"
    assert not forged.exists()
    assert_same_search(load_results(result.id), study.reference())
    assert study.processes() == []


def is_creating(study):
    return study.processes("nni_spos.experiment.nnictl")


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT, signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGINT], 143),
        ([signal.SIGHUP], 129),
    ],
)
def test_a_start_that_is_ended_early_leaves_nothing(study, numbers, code):
    study.write(seconds=0.3)
    starting = run(study, "start", study.config, "--port", study.port)
    wait_until(lambda: is_creating(study) or starting.poll() is not None)
    assert starting.poll() is None, starting.communicate()
    for number in numbers:
        time.sleep(0.4)
        starting.send_signal(number)
    _, errors = starting.communicate(timeout=PATIENCE)
    assert starting.returncode == code, errors
    assert errors.splitlines()[-1] in ("interrupted", "terminated")
    wait_until(lambda: study.processes() == [])


def test_the_end_of_the_terminal_ends_the_search(study):
    study.write(seconds=0.3)
    running = run(study, "start", study.config, "--port", study.port)
    wait_until(lambda: study.num_outcomes() >= 3 or running.poll() is not None)
    assert running.poll() is None, running.communicate()
    running.send_signal(signal.SIGHUP)
    running.communicate(timeout=PATIENCE)
    assert running.returncode == 129
    wait_until(lambda: study.processes() == [])


def test_of_several_starts_at_one_port_one_runs(study):
    study.write()
    starting = [run(study, "start", study.config, "--port", study.port) for _ in range(3)]
    ended = [process.communicate(timeout=PATIENCE) for process in starting]
    codes = [process.returncode for process in starting]
    assert sorted(codes) == [0, 2, 2], ended
    for code, (_, errors) in zip(codes, ended, strict=True):
        if code:
            assert f"port {study.port} is in use" in errors
            assert len(errors.splitlines()) == 1
    journals = study.folder.glob("experiments/*/checkpoint/search.jsonl")
    [journal] = {journal.resolve() for journal in journals}  # NNI links the latest
    assert_same_search(load_results(journal.parents[1].name), study.reference())
    assert study.processes() == []


def test_of_two_resumes_one_runs(study):
    study.write(seconds=0.3)
    running = run(study, "start", study.config, "--port", study.port)
    wait_until(lambda: study.num_outcomes() >= 4 or running.poll() is not None)
    running.terminate()
    running.communicate(timeout=PATIENCE)
    experiment_id = study.journal().parents[1].resolve().name
    resuming = [run(study, "resume", experiment_id, "--port", study.port + i) for i in range(2)]
    ended = [process.communicate(timeout=PATIENCE) for process in resuming]
    codes = [process.returncode for process in resuming]
    assert sorted(codes) == [0, 2], ended
    assert "resumed by another" in ended[codes.index(2)][1]
    assert_same_search(load_results(experiment_id), study.reference())
    assert study.processes() == []
