"""A trial whose score is looked up in NAS-Bench-Macro's table: ``python macro_trial.py TABLE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nni_spos.experiment.exchange import open_trial

if __name__ == "__main__":
    trial = open_trial()
    entry = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["".join(trial.path.values())]
    trial.report({"top1": entry["mean_acc"]})
