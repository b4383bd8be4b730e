"""A trial without a network: what becomes of a path depends on the path alone.

Run as ``python fake_trial.py LOG [SECONDS] [--no-failures]``; every evaluation adds a line to LOG.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time

from nni_spos.experiment.exchange import open_trial
from nni_spos.experiment.manager import Manager

FAILURES = {0: "dies early", 1: "crashes", 2: "is silent", 3: "reports NaN"}


def fate(path: dict, failures: bool = True) -> str:
    """What happens to a trial of this path: one of FAILURES, or ``scores``."""
    return FAILURES.get(_digest(path, "fate") % 12, "scores") if failures else "scores"


def score(path: dict) -> float:
    """A score between 0 and 100 that choices add to, so that there is something to evolve."""
    parts = [_digest({label: choice}, "score") % 1000 for label, choice in path.items()]
    return round(sum(parts) / len(parts) / 10 + (_digest(path, "noise") % 1000) / 1e4, 4)


def _digest(path: dict, salt: str) -> int:
    text = salt + json.dumps(path, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def main() -> None:
    log, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    failures = "--no-failures" not in sys.argv
    job = os.environ["NNI_TRIAL_JOB_ID"]
    manager = Manager.from_channel(os.environ["NNI_TRIAL_COMMAND_CHANNEL"])
    while (record := manager.trial_job(job)) is None:
        time.sleep(0.1)
    if fate(record.parameters, failures) == "dies early":
        os._exit(3)
    trial = open_trial()
    if trial is None:
        return
    time.sleep(seconds)
    with open(log, "a") as stream:
        stream.write(json.dumps({"job": job, "path": trial.path}) + "\n")
    what = fate(trial.path, failures)
    if what == "crashes":
        raise RuntimeError("as planned")
    if what == "is silent":
        return
    top1 = math.nan if what == "reports NaN" else score(trial.path)
    trial.report({"top1": top1, "top5": top1, "loss": 1.0})


if __name__ == "__main__":
    main()
