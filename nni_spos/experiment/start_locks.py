"""What two commands that start experiments at the same time may not share."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError
from nni_spos.files.digests import digest_content
from nni_spos.files.locks import exclusive
from nni_spos.search.results import nni_home

FOLDER = ".locks"
"""Of the locks, beside NNI's list of experiments."""


@contextlib.contextmanager
def port_lock(port: int) -> Iterator[None]:
    """Keep a port for one experiment of this user. Raises ExperimentError if another has it."""
    refusal = ExperimentError(
        f"port {port} is in use by another 'nni-spos start' or 'resume'; choose another with "
        f"--port, e.g. --port {port + 1}."
    )
    with exclusive(_folder() / f"port-{port}", timeout=0, refusal=refusal):
        yield


@contextlib.contextmanager
def experiment_lock(experiment_id: str) -> Iterator[None]:
    """Keep an experiment for one command. Raises ExperimentError if another one resumes it."""
    refusal = ExperimentError(
        f"experiment {experiment_id} is being resumed by another 'nni-spos resume'; wait for it, "
        f"or stop the experiment: nnictl stop {experiment_id}"
    )
    name = f"experiment-{digest_content(experiment_id)}"
    with exclusive(_folder() / name, timeout=0, refusal=refusal):
        yield


def _folder() -> FilePath:
    """Return a folder that nobody else can write to. Raises ExperimentError if there is none."""
    folder = nni_home() / FOLDER
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=stat.S_IRWXU)
    found = folder.lstat()
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or is_shared:
        raise ExperimentError(
            f"{folder}: must be a folder of this user that nobody else can write to. Delete it; "
            "it is made anew."
        )
    return folder
