"""How long a trial waits, with a pipe for the connection and a clock of the test."""

from __future__ import annotations

import json
import threading
from multiprocessing import Pipe

import pytest

from nni_spos.worker import patience as worker_patience
from nni_spos.worker.patience import (
    HEARTBEAT,
    SILENCE_S,
    STALL_S,
    Bounded,
    Patience,
    Unresponsive,
    receive_answer,
)


class Clock:
    """Stands for `time` and for a connection: every look at it takes a second.

    Parameters
    ----------
    beats
        What the worker sends in each second; None: nothing.
    """

    def __init__(self, beats):
        self.now = 0.0
        self._beats = iter(beats)
        self._message = None

    def monotonic(self):
        return self.now

    def poll(self, timeout):
        self.now += 1.0
        self._message = next(self._beats)
        return self._message is not None

    def recv_bytes(self, size):
        return json.dumps(self._message).encode()


@pytest.fixture
def receive(monkeypatch):
    def run(beats):
        clock = Clock(beats)
        monkeypatch.setattr(worker_patience, "time", clock)
        try:
            return receive_answer(clock), clock.now
        except Unresponsive as problem:
            return str(problem), clock.now

    return run


def beat(signs, share=0.0):
    return {HEARTBEAT: {"signs": signs, "share": share}}


DONE = {"results": {}}


def test_an_answer_is_found_behind_heartbeats(receive):
    assert receive([beat(0), None, beat(1), DONE]) == (DONE, 4.0)


def test_a_silent_worker_is_given_up(receive):
    minutes = [None] * int(SILENCE_S)
    found, after = receive([beat(0), *minutes, DONE])
    assert found == "it has said nothing for 300 s"
    assert after == 1 + SILENCE_S
    assert receive([beat(0), *minutes[1:], beat(0), *minutes[1:], DONE])[0] == DONE


def test_a_worker_that_does_nothing_is_given_up(receive):
    found, after = receive([*[beat(7, 0.25)] * (int(STALL_S) + 1), DONE])
    assert found == "it has done nothing for 3600 s, with 25% of the paths scored"
    assert after == 1 + STALL_S


@pytest.mark.parametrize("change", [{"signs": 8}, {"share": 0.5}])
def test_a_worker_that_does_something_now_and_then_is_waited_for(receive, change):
    hour = [beat(7)] * int(STALL_S)
    other = {HEARTBEAT: {**beat(7)[HEARTBEAT], **change}}
    assert receive([*hour, other, *[other] * int(STALL_S - 1), DONE])[0] == DONE


def test_the_time_in_which_all_was_stopped_does_not_count():
    waited = Patience(10.0)
    assert not waited.add(9.0)
    assert not waited.add(86400.0)
    assert waited.waited_s == 2 * 2 * worker_patience.TICK_S
    assert not any(waited.add(1.0) for _ in range(5))
    assert waited.add(1.0)
    waited.reset()
    assert not waited.add(1.0)


def test_a_worker_that_is_gone_is_no_unresponsive_one():
    here, there = Pipe()
    there.send_bytes(json.dumps(beat(0)).encode())
    there.close()
    with here, pytest.raises(EOFError):
        receive_answer(here)


def test_what_waits_for_ever_is_left_behind(monkeypatch):
    monkeypatch.setattr(worker_patience, "SILENCE_S", 0.1)
    monkeypatch.setattr(worker_patience, "TICK_S", 0.05)
    never = threading.Event()
    with pytest.raises(Unresponsive, match="it has said nothing"):
        Bounded(never.wait).call()
    never.set()
    assert Bounded(never.wait).call()
    with pytest.raises(ZeroDivisionError):
        Bounded(lambda: 1 / 0).call()
