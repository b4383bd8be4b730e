"""Say that other processes need the cores that a training's threads wait on."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from typing import Any

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from nni_spos.errors import BusyWarning


class BusyMachine(Callback):
    """Warn, once, if other processes keep cores busy and a training has a thread for each core.

    The threads of an operation wait for the one that gets no core, so a small network trains
    several times as fast with a single thread. How many there are is left to the user: it decides
    how sums are rounded, and so the weights to the last bit.
    """

    WATCHED_S = 10.0
    """Seconds of training that are looked at."""

    BUSY_SHARE = 0.5
    """Of all cores, used by others, from which a machine is busy."""

    def __init__(self) -> None:
        self._begin: tuple[float, float] | None = None
        self._end = float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        chosen = "OMP_NUM_THREADS" in os.environ
        shares = trainer.world_size > 1  # the others are parts of this training
        if (
            pl_module.device.type == "cpu"
            and torch.get_num_threads() > 1
            and not (chosen or shares)
        ):
            self._begin = _used_s()
            self._end = time.monotonic() + self.WATCHED_S

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if self._begin is None or now < self._end:
            return
        seconds = now - self._end + self.WATCHED_S
        by_all, by_this = (end - begin for end, begin in zip(_used_s(), self._begin, strict=True))
        used = (by_all - by_this) / seconds
        self._begin = None
        cores = psutil.cpu_count() or 1
        if used >= self.BUSY_SHARE * cores:
            warnings.warn(
                f"other processes use {used:.1f} of {cores} cores, and threads wait for those that "
                "have none. OMP_NUM_THREADS=1 trains a small network several times as fast here.",
                BusyWarning,
                stacklevel=2,
            )


def _used_s() -> tuple[float, float]:
    """Return the processor time in seconds of all processes together, and of this training's."""
    everything = psutil.cpu_times()
    idle = sum(getattr(everything, x, 0.0) for x in ("idle", "iowait", "steal"))
    # Linux counts the time of guests a second time.
    guests = sum(getattr(everything, x, 0.0) for x in ("guest", "guest_nice"))
    own = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):  # those that load images too
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            own += times.user + times.system
    return sum(everything) - idle - guests, own
