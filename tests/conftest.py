import contextlib
import io
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from nni_spos.child import python_command
from nni_spos.cli import main
from nni_spos.experiment import costs

# A busy machine is no reason to fail.
settings.register_profile("nni_spos", deadline=None)
settings.load_profile("nni_spos")

GPU = "gpu"
"""The marker of tests on a CUDA device: ``pytest -m gpu`` runs these, and no other run sees one."""

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config):
    """Hide CUDA devices, also from the processes that tests start, unless they are to be tested.

    Exact results are those of a CPU: a GPU computes in mixed precision, and in its own order.
    """
    if config.getoption("markexpr", "") != GPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_runtest_setup(item):
    if item.get_closest_marker(GPU) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and 'pytest -m gpu'")


@pytest.fixture(scope="session")
def nas_bench_macro_file():
    """The published table, which lies beside the repository where it is."""
    file = SHARED_DATA / "nas-bench-macro_cifar10.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    return file


@pytest.fixture
def costs_built_here(monkeypatch):
    """Build costs in this process: another one would first import PyTorch and NNI for seconds.

    `test_own_costs`, the properties and the experiments under nnictl have real ones.
    """

    def run(command, **_):
        prefix = python_command("nni_spos.cli", ["costs"])
        assert command[: len(prefix)] == prefix
        with (
            contextlib.redirect_stdout(io.StringIO()) as output,
            contextlib.redirect_stderr(io.StringIO()) as errors,
        ):
            code = main(command[len(prefix) - 1 :])
        return subprocess.CompletedProcess(command, code, output.getvalue(), errors.getvalue())

    monkeypatch.setattr(costs, "subprocess", SimpleNamespace(run=run))


@pytest.fixture
def alone(tmp_path_factory):
    """No other test that asks for this runs at the same time, in whichever process.

    Whoever waits is the next one: a process that runs one such test after the other would else have
    the lock again before any other process looks.
    """
    folder = tmp_path_factory.getbasetemp().parent
    running = FileLock(folder / "alone.lock")
    with FileLock(folder / "next.lock"):
        running.acquire()
    try:
        yield
    finally:
        running.release()


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
