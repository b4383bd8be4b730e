"""A trial whose score is looked up in NAS-Bench-Macro's table: ``python macro_trial.py TABLE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nni_spos.experiment.exchange import open_trial

if __name__ == "__main__":
    if (trial := open_trial()) is not None:
        table = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        trial.report({"top1": table["".join(trial.path.values())]["mean_acc"]})
