"""NNI's own dispatcher, and results that it cannot read."""

import json
import sys

import pytest
from nni.runtime.tuner_command_channel.command_type import CommandType

from nni_spos.experiment import dispatcher


class Heard:
    """A tuner that keeps what it is told."""

    def __init__(self):
        self.results = []

    def receive_trial_result(self, parameter_id, parameters, value, **more):
        self.results.append(value)

    def import_data(self, data):
        self.results += [entry["value"] for entry in data]


@pytest.fixture
def nni(monkeypatch):
    """NNI's dispatcher without a manager, as it is."""
    from nni.runtime import msg_dispatcher

    monkeypatch.setattr(msg_dispatcher, "load", msg_dispatcher.load)
    monkeypatch.setitem(msg_dispatcher._trial_params, 0, {"a": "k3"})
    return msg_dispatcher.MsgDispatcher("ws://_unittest_placeholder_", Heard())


def tell(nni, value):
    metric = {"parameter_id": 0, "trial_job_id": "abc", "type": "FINAL", "value": value}
    nni.process_command(CommandType.ReportMetricData, metric)
    nni.process_command(CommandType.ImportData, [{"parameter": {"a": "k3"}, "value": value}])


def test_a_result_that_cannot_be_read_is_text(nni):
    unreadable = ["[" * 5000, "9" * 5000, "good", "{", ""]
    dispatcher.accept_any_result()
    dispatcher.accept_any_result()
    for value in unreadable:
        tell(nni, value)
    tell(nni, json.dumps({"default": 5.0, "path": {"a": "k3"}}))
    found = nni.tuner.results
    assert found[:-2] == [value for value in unreadable for _ in range(2)]
    assert found[-2:] == [{"default": 5.0, "path": {"a": "k3"}}] * 2


def test_nni_alone_fails(nni):
    """Why it is needed at all."""
    with pytest.raises(RecursionError):
        tell(nni, "[" * 5000)


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.delitem(sys.modules, dispatcher.MODULE, raising=False)
    dispatcher.accept_any_result()
    assert dispatcher.MODULE not in sys.modules
