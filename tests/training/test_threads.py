"""How many threads a training has, and what is said where others need the cores."""

import warnings
from types import SimpleNamespace

import psutil
import pytest
import torch

from nni_spos.errors import BusyWarning
from nni_spos.training import busy_machine, threads_for
from nni_spos.training.busy_machine import BusyMachine
from nni_spos.training.threads import SMALL

BATCH = 64


@pytest.fixture
def two_threads(monkeypatch):
    """PyTorch with two threads that nobody asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("share", "threads"), [(0.0, 1), (0.99, 1), (1.0, 2), (50.0, 2)])
def test_a_small_network_has_one_thread(two_threads, share, threads):
    with threads_for(share * SMALL / BATCH, BATCH):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


def test_what_the_user_set_stays(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads_for(0.0, BATCH):
        assert torch.get_num_threads() == 2


def test_the_number_is_back_after_an_error(two_threads):
    with pytest.raises(ValueError, match="x"), threads_for(0.0, BATCH):
        raise ValueError("x")
    assert torch.get_num_threads() == 2


class Machine:
    """Clocks of a machine and of this process that a test moves on."""

    def __init__(self, monkeypatch):
        self.now = self.by_all = self.by_this = 0.0
        monkeypatch.setattr(busy_machine, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(busy_machine, "_used_s", lambda: (self.by_all, self.by_this))
        monkeypatch.setattr(psutil, "cpu_count", lambda: 4)

    def warned(self, others: float, own: float = 1.0, device: str = "cpu", ranks: int = 1) -> list:
        """Train for some seconds beside others that use so many cores; return the warnings."""
        callback = BusyMachine()
        trainer = SimpleNamespace(world_size=ranks)
        module = SimpleNamespace(device=torch.device(device))
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            callback.on_train_start(trainer, module)
            for _ in range(40):
                self.now += 1.0
                self.by_all += others + own
                self.by_this += own
                callback.on_train_batch_end(trainer, module, None, None, 0)
        return [x for x in found if x.category is BusyWarning]


def test_busy_cores_are_told_of_once(two_threads, monkeypatch):
    machine = Machine(monkeypatch)
    (warning,) = machine.warned(others=2.0)
    assert "other processes use 2.0 of 4 cores" in str(warning.message)
    assert "OMP_NUM_THREADS=1" in str(warning.message)


@pytest.mark.parametrize(
    "quiet",
    [{"others": 1.9}, {"others": 0.0, "own": 4.0}, {"others": 3.0, "ranks": 2}],
)
def test_nothing_is_said_without_a_reason(two_threads, monkeypatch, quiet):
    assert not Machine(monkeypatch).warned(**quiet)


def test_nothing_is_said_of_a_gpu_or_where_the_user_chose(two_threads, monkeypatch):
    machine = Machine(monkeypatch)
    assert not machine.warned(others=4.0, device="cuda")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert not machine.warned(others=4.0)
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    assert not machine.warned(others=4.0)


def test_processor_time_of_this_process_is_part_of_all():
    all_before, own_before = busy_machine._used_s()
    sum(i * i for i in range(3_000_000))
    all_after, own_after = busy_machine._used_s()
    assert own_after > own_before
    assert all_after - all_before >= 0.5 * (own_after - own_before)
