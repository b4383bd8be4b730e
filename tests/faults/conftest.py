"""The small recipes of the other tests, and a disk that can be filled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "experiment"))


class SmallDisk:
    """A file system in memory, with a file that takes what is left of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes free."""
        self._filler.unlink(missing_ok=True)
        room = os.statvfs(self.folder)
        with open(self._filler, "wb") as stream:
            stream.write(b"0" * max(0, room.f_bavail * room.f_frsize - free))

    def make_room(self) -> None:
        """Remove what fills it."""
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as problem:
        pytest.skip(f"no file system can be mounted here: {problem}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)
