import gc
import os
import subprocess
from pathlib import Path

import crashed_processes
import processor_time
import pytest
import skips
import torch
from built_costs import costs_built_here, costs_built_once  # noqa: F401 - of all tests
from hypothesis import settings
from recipe_fixtures import (  # noqa: F401 - fixtures of all tests
    folder,
    manager,
    own_temporary_files,
    recipe_file,
    refused,
    temporary_files,
    trained_folder,
)

# A busy machine is no reason to fail.
settings.register_profile("nni_spos", deadline=None)
settings.load_profile("nni_spos")

NNI = ("nni0", "nni1", "nni2")
"""Groups of the tests that run nnictl."""

GPU = "gpu"
"""The marker of tests on a CUDA device: ``pytest -m gpu`` runs these, and no other run sees one."""


def pytest_addoption(parser):
    processor_time.add_options(parser)


def pytest_configure(config):
    """Hide CUDA devices, also from the processes that tests start, unless they are to be tested.

    Exact results are those of a CPU: a GPU computes in mixed precision, and in its own order.
    """
    if config.getoption("markexpr", "") != GPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    processor_time.register(config)
    config.pluginmanager.register(skips)
    config.pluginmanager.register(crashed_processes)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Say what ``--dist loadgroup`` must keep in one process.

    That is each file, whose tests share what they build. Those that run nnictl mostly wait for it:
    they are a few long groups, which begin first (with ``--no-loadscope-reorder``). Then come the
    notebooks, which are as long.
    """
    for item in items:
        if item.nodeid.startswith("docs/"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_turn)
    nni: dict[str, str] = {}
    for item in items:
        group = item.nodeid.partition("::")[0]
        if item.get_closest_marker("nni"):
            group = nni.setdefault(group, NNI[len(nni) % len(NNI)])
        item.add_marker(pytest.mark.xdist_group(group))


def _turn(item):
    """Return what decides when a test begins."""
    return item.get_closest_marker("nni") is None, not item.nodeid.startswith("docs/")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    """Take the groups, which pytest-xdist adds to names, from what ``--last-failed`` looks for."""
    plugin = session.config.pluginmanager.get_plugin("lfplugin")  # none without a cache
    failed = plugin.lastfailed if plugin else {}
    for name in list(failed):
        file = name.partition("::")[0]
        groups = (*NNI, file)
        group = next((x for x in groups if name.endswith(f"@{x}")), "")
        failed[name.removesuffix(f"@{group}")] = failed.pop(name)


def pytest_collection_finish():
    """Let collections of garbage leave out half a million objects of modules that stay."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if item.get_closest_marker(GPU) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and 'pytest -m gpu'")


@pytest.fixture(scope="session")
def nas_bench_macro_file():
    """The published table, which lies beside the repository where it is."""
    file = skips.SHARED_DATA / "nas-bench-macro_cifar10.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    return file


@pytest.fixture(scope="session")
def channel_bench_macro_file():
    """The published tables of widths, which lie beside the repository where they are."""
    file = skips.SHARED_DATA / "channel-bench-macro_cifar10.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    return file


class SmallDisk:
    """A file system in memory, with a file that takes what is left of it."""

    def __init__(self, root: Path):
        self.root = root
        self._filler = root / "filler"

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes free."""
        self._filler.unlink(missing_ok=True)
        room = os.statvfs(self.root)
        with open(self._filler, "wb") as stream:
            stream.write(b"0" * max(0, room.f_bavail * room.f_frsize - free))

    def make_room(self) -> None:
        """Remove what fills it."""
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as problem:
        pytest.skip(f"no file system can be mounted here: {problem}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield SmallDisk(disk)
    subprocess.run(["umount", str(disk)], check=True)
