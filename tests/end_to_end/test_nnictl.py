"""The real nnictl, with trials that fail, and with experiments that are cut off."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from fake_trial import fate, score
from nni_home import SPACE
from waiting import PATIENCE, wait_until

from nni_spos.errors import ExperimentError
from nni_spos.evolution import State
from nni_spos.experiment.start import ManagerOptions, _run, resume, start, stop
from nni_spos.search.results import load_results

pytestmark = pytest.mark.nni


def test_concurrent_trials_that_fail_do_not_disturb_the_search(study):
    study.write(concurrency=4)
    lines = []
    result = start(study.config, ManagerOptions(port=study.port, keep=True), report=lines.append)
    assert result.status == "DONE"

    # Every row that NNI exports has the path that was evaluated.
    jobs = study.manager.trial_jobs()
    evaluated = {line["job"]: line["path"] for line in study.evaluated()}
    reported = 0
    for job in jobs:
        assert evaluated.get(job.id, job.parameters) == job.parameters
        if job.metrics is not None:
            assert job.metrics["path"] == job.parameters
            reported += 1
    assert reported > 10
    for row in study.manager.export():
        assert row["parameter"] == evaluated[row["trialJobId"]]
    keys = Counter(SPACE.key(job.parameters) for job in jobs)
    assert max(keys.values()) == 1

    # Failures cost no slot: all four are in use in every generation, also in the last.
    records = study.manager._request("GET", "/trial-jobs")
    generations = {SPACE.key(c.path): c.generation for c in load_results(result.id).candidates}
    times = [
        (generations[SPACE.key(job.parameters)], record["startTime"], record["endTime"])
        for job, record in zip(jobs, records, strict=True)
    ]
    for generation in range(3):
        spans = [(begin, end) for g, begin, end in times if g == generation]
        at_once = max(sum(b <= t < e for b, e in spans) for t, _ in spans)
        assert at_once == 4, f"generation {generation} had {at_once} trials at a time"

    # The page is shown on this machine only.
    listening = {
        connection.laddr.ip
        for process in study.processes()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening - {"::1"} == {"127.0.0.1"}

    # The generations are those of the same search in one process.
    stop(result.id)
    assert study.processes() == []
    assert_same_search(load_results(result.id), study.reference())
    fates = Counter(fate(job.parameters) for job in jobs)
    assert len(fates) == 5, f"the seed should give every kind of failure: {fates}"
    assert reported == fates["scores"] + fates["reports NaN"]
    # What failed says why, in the words of the trial and with its log.
    reasons = {fate(c.path): c.reason for c in load_results(result.id).candidates if c.reason}
    assert "the trial failed; its last words: RuntimeError: as planned (see /" in reasons["crashes"]
    assert "a call of report is missing" in reasons["is silent"]
    assert "the trial failed; its last words: none (see /" in reasons["dies early"]
    assert any(result.id in line and str(study.port) in line for line in lines)


RUN = """
import signal, sys
from nni_spos.experiment.start import ManagerOptions, start
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
print(start(sys.argv[1], ManagerOptions(port=int(sys.argv[2])), report=lambda line: None).status)
"""


STUCK = """
import os, time
if os.environ.get("SDK_PROCESS") == "dispatcher":
    from nni.runtime.command_channel.websocket import WsChannelClient
    send = WsChannelClient.send
    def wait_and_send(self, command):
        while os.path.exists({stick!r}):
            open({stuck!r}, "w").close()
            time.sleep(0.1)
        send(self, command)
    WsChannelClient.send = wait_and_send
"""

ENDS = {"interrupt": (signal.SIGINT, "KeyboardInterrupt"), "end": (signal.SIGTERM, "Terminated")}


@pytest.mark.parametrize("how", [*ENDS, "kill"])
def test_a_search_that_was_cut_off_goes_on(study, how, monkeypatch):
    study.write(concurrency=3, seconds=0.3, population_size=6)
    stick, stuck = (study.folder / name for name in ("stick", "stuck"))
    if how == "kill":
        customize_tuner(study, STUCK.format(stick=str(stick), stuck=str(stuck)), monkeypatch)
    running = subprocess.Popen(
        [sys.executable, "-c", RUN, str(study.config), str(study.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: study.num_outcomes() >= 8 or running.poll() is not None)
    assert running.poll() is None, running.communicate()
    experiment_id = study.journal().resolve().parents[1].name
    if how in ENDS:
        number, said = ENDS[how]
        running.send_signal(number)
        _, errors = running.communicate(timeout=PATIENCE)
        assert said in errors.splitlines()[-1]
    else:
        managers = [process for process in study.processes() if process.name() == "node"]
        assert len(managers) == 1
        # The tuner is sending meanwhile, and never gets an answer.
        stick.touch()
        wait_until(stuck.exists)
        managers[0].kill()
        output, errors = running.communicate(timeout=PATIENCE)
        assert output.split() == ["STOPPED"], errors
    # A killed manager leaves nothing that could disturb the next. NNI's tuners would try to
    # reach it for twenty seconds, and so find the next one on the same port.
    begin = time.monotonic()
    wait_until(lambda: not study.processes("--exp_params"))
    assert time.monotonic() - begin < 20
    wait_until(lambda: study.processes() == [])
    stick.unlink(missing_ok=True)
    done_before = {
        SPACE.key(candidate.path) for candidate in load_results(experiment_id).candidates
    }
    num_before = len(study.evaluated())

    result = resume(experiment_id, ManagerOptions(port=study.port), report=lambda line: None)
    assert result.status == "DONE"
    assert study.processes() == []
    results = load_results(experiment_id)
    assert_same_search(results, study.reference())
    assert len(done_before) >= 8
    again = [SPACE.key(line["path"]) for line in study.evaluated()[num_before:]]
    assert done_before.isdisjoint(again), "a finished candidate was evaluated again"
    assert max(Counter(again).values()) == 1
    assert results.best.path == study.reference().top(1)[0].path


def customize_tuner(study, code, monkeypatch):
    """Run code at the start of every process of NNI, which passes the environment on."""
    (study.folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{study.folder}{os.pathsep}{os.environ['PYTHONPATH']}")


BROKEN = """
import os
if os.environ.get("SDK_PROCESS") == "dispatcher":
    import nni_spos.evolution.journal as journal
    def append(self, candidate):
        raise OSError("No space left on device")
    journal.Journal.append = append
"""


def test_an_exception_in_the_tuner_ends_the_experiment(study, monkeypatch):
    study.write()
    customize_tuner(study, BROKEN, monkeypatch)
    with pytest.raises(ExperimentError, match="No space left on device") as caught:
        start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    assert "nnimanager.log" in str(caught.value)
    assert "\n" not in str(caught.value)
    log = next(study.folder.glob("experiments/*/log/nnimanager.log")).read_text()
    assert "Traceback (most recent call last)" in log
    assert "in append" in log
    assert study.processes() == []


def test_wrong_class_args_end_the_experiment_even_without_a_check(study):
    study.write(class_args={"num_generation": 2})
    command = ["create", "--config", str(study.config), "--port", str(study.port)]
    with pytest.raises(ExperimentError, match=r"did you mean 'num_generations'") as caught:
        _run(command, None, ManagerOptions(study.port), 1, lambda line: None)
    assert "nnimanager.log" in str(caught.value)
    wait_until(lambda: study.processes() == [])


def test_a_port_in_use_is_named(study):
    study.write()
    with socket.socket() as server:
        server.bind(("127.0.0.1", study.port))
        server.listen()
        with pytest.raises(ExperimentError, match=rf"port {study.port} is in use.*--port"):
            start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    assert not (study.folder / "experiments").exists()
    assert study.processes() == []


def assert_same_search(results, reference):
    """The journal holds exactly the candidates, generations and outcomes of another search."""
    found = [(c.number, c.generation, c.path, c.state) for c in results.candidates]
    expected = [(c.number, c.generation, c.path, c.state) for c in reference.candidates]
    assert found == expected
    for candidate in results.candidates:
        if candidate.state is State.DONE:
            assert candidate.metrics["top1"] == score(candidate.path)
