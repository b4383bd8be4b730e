"""The cost of a training, over the parts of one that was resumed."""

from __future__ import annotations

import time
from types import SimpleNamespace

from nni_spos.training import TrainingCost


def begin(meter: TrainingCost, global_step: int) -> None:
    meter.on_train_start(SimpleNamespace(global_step=global_step), None)


def test_a_training_begins_at_nothing():
    meter = TrainingCost()
    assert meter.cost is None
    begin(meter, 0)
    time.sleep(0.01)
    assert 0.01 <= meter.cost.seconds < 10


def test_a_resumed_training_goes_on_from_the_checkpoint():
    meter = TrainingCost()
    meter.load_state_dict({"cost": {"seconds": 100.0, "peak_memory_bytes": 2**50, "device": "x"}})
    begin(meter, 7)
    assert 100 <= meter.cost.seconds < 110
    assert meter.cost.peak_memory_bytes == 2**50
    saved = meter.state_dict()
    third = TrainingCost()
    third.load_state_dict(saved)
    begin(third, 9)
    assert third.cost.seconds >= saved["cost"]["seconds"]


def test_half_a_training_does_not_pass_for_all_of_it():
    meter = TrainingCost()
    begin(meter, 7)  # its checkpoint is of a time before costs were recorded
    assert meter.cost is None
    assert meter.state_dict() == {"cost": None}
