"""Signals end a command in order, however often and whenever they come."""

import signal
import subprocess
import sys

import pytest

from nni_spos.process import termination
from nni_spos.process.termination import Terminated, deferred_signals, raise_on_signals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def defaults():
    """As in a command, whatever this process was started with."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers():
    return [signal.getsignal(number) for number in CODES]


@pytest.mark.parametrize("again", CODES)
@pytest.mark.parametrize("number", CODES)
def test_what_ends_after_a_signal_is_ended_to_the_end(number, again):
    before, steps = handlers(), []

    @raise_on_signals()
    def command():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(again)
            signal.raise_signal(again)
            steps.append("ended")

    with pytest.raises(KeyboardInterrupt) as caught:
        command()
    assert steps == ["ended"]
    assert handlers() == before
    assert getattr(caught.value, "exit_code", 130) == CODES[number]
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)


def test_signals_that_the_caller_handles_or_ignores_stay_his():
    came = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    before = handlers()

    @raise_on_signals()
    def command():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        came.append(2)
        signal.raise_signal(signal.SIGINT)
        came.append(3)

    with pytest.raises(KeyboardInterrupt):
        command()
    assert came == [1, 2]
    assert handlers() == before


@pytest.mark.parametrize("number", CODES)
def test_a_deferred_signal_comes_after_what_was_begun(number):
    before, steps = handlers(), []

    @raise_on_signals()
    def command():
        with deferred_signals():
            signal.raise_signal(number)
            signal.raise_signal(number)
            steps.append("begun")
        steps.append("went on")

    with pytest.raises(KeyboardInterrupt) as caught:
        command()
    assert steps == ["begun"]
    assert getattr(caught.value, "exit_code", 130) == CODES[number]
    assert handlers() == before
    with raise_on_signals(), deferred_signals():
        steps.append("no signal")
    assert steps == ["begun", "no signal"]


def test_a_signal_during_the_end_of_something_that_failed_comes_after_it():
    steps = []

    @raise_on_signals()
    def command():
        try:
            raise ValueError
        except ValueError:
            with deferred_signals():
                signal.raise_signal(signal.SIGINT)
                steps.append("ended")
            raise

    with pytest.raises(KeyboardInterrupt):
        command()
    assert steps == ["ended"]


def test_programs_that_are_started_meanwhile_can_be_interrupted():
    """Ignored signals would be ignored by them as well."""
    program = "import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"

    @raise_on_signals()
    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
            assert done.stdout == "True\n"

    with pytest.raises(KeyboardInterrupt):
        command()


@pytest.mark.parametrize("number", CODES)
def test_the_exit_codes_of_commands(monkeypatch, capsys, number):
    from nni_spos import cli
    from nni_spos.cli import spaces

    def run(options):
        with raise_on_signals():
            signal.raise_signal(number)

    monkeypatch.setattr(spaces, "space", run)
    assert cli.main(["space", "recipe.yml"]) == CODES[number]
    said = "interrupted" if number == signal.SIGINT else "terminated"
    assert capsys.readouterr().err == f"{said}\n"


def test_without_the_end_of_terminals():
    assert {signal.SIGINT, signal.SIGTERM} <= set(termination.SIGNALS)
