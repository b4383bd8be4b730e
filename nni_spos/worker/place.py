"""Where a worker and its trials meet, and where its log is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from nni_spos.files.owned import check_own_folder
from nni_spos.worker.meeting_place import make_private

LOG_LINES = 5
"""Lines of a worker's log that an error repeats."""


@dataclass(frozen=True)
class WorkerFolder:
    """The two folders of the worker of an identity.

    Parameters
    ----------
    path
        What it leaves for people. Nothing in it is trusted: others may write to an output folder.
    private
        What the worker and the trials believe: in `nni_spos.worker.meeting_place`, so that
        only this user can enter it.
    """

    path: FilePath
    private: FilePath

    @property
    def lock(self) -> FilePath:
        """Held by a trial that looks for the worker or starts it."""
        return self.private / "start.lock"

    @property
    def address(self) -> FilePath:
        """Where the worker listens, and its secret."""
        return self.private / "address.json"

    @property
    def identity(self) -> FilePath:
        """What the worker must be; it proves that by the name of the private folder."""
        return self.path / "identity.json"

    @property
    def log(self) -> FilePath:
        """Output of all workers that there were."""
        return self.path / "worker.log"

    def make(self) -> WorkerFolder:
        """Make the folders.

        Returns
        -------
        This, or with the log in the private folder if the output folder is another user's to write.

        Raises
        ------
        nni_spos.files.owned.NotOwnError
            There is a folder of that name that is not this user's.
        """
        make_private(self.private)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            check_own_folder(self.path)
            raise
        except OSError:
            return replace(self, path=self.private)
        check_own_folder(self.path)
        return self

    def end_of_log(self) -> str:
        """Return the last lines of the log, as one line."""
        lines: list[str] = []
        with contextlib.suppress(OSError), open(self.log, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 10_000))
            lines = log.read().decode(errors="replace").splitlines()
        shown = [line.strip() for line in lines if line.strip()][-LOG_LINES:]
        return f"The end of {self.log}: {' | '.join(shown) or 'it is empty'}"
