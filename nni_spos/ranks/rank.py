"""A process of a training, started by `nni_spos.ranks.launch`: ``rank FILE``, a job as input."""

from __future__ import annotations

import os
import pickle  # nosec B403
import sys
import threading
from pathlib import Path as FilePath

from nni_spos.files.atomic import write_atomically
from nni_spos.ranks.launch import Outcome, run_job


def main() -> int:
    """Read a job, do it, and write how it ended to a file."""
    with open(0, "rb", closefd=False) as stream:
        # A pipe from the process that started this one.
        job = pickle.load(stream)  # nosec B301
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome: Outcome = run_job(job)
    if os.environ["RANK"] != "0" and outcome.error is None:
        outcome = Outcome(bug=outcome.bug)  # the results of all are the same
    write_atomically(FilePath(sys.argv[1]), lambda stream: pickle.dump(outcome, stream))
    return int(outcome.error is not None or bool(outcome.bug))


def _end_with_parent() -> None:
    """Wait for the end of the input, which comes when the parent ends or wants this one to end."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
