"""Run a training in several processes: started here, or already by torchrun or SLURM."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle  # nosec B403
import socket
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.errors import ProcessError, RecipeError, SposError
from nni_spos.process.child import python_command
from nni_spos.ranks.places import adopt_slurm, count_devices, launched
from nni_spos.recipe.image_size import ImageSize
from nni_spos.recipe.training_settings import TrainSettings

if TYPE_CHECKING:
    from torch.distributed import Store

MODULE = "nni_spos.ranks.rank"
"""What a process that is started here runs."""

TICK_S, GRACE_S = 0.1, 5.0
"""Seconds between two looks at the processes; until those that lost another one are ended."""

FAREWELL = timedelta(seconds=GRACE_S)
"""How long rank 0 waits in the end for the others to have read that it is the end."""

PATIENCE = timedelta(days=30)
"""How long rank 0 may take to prepare a training, and the others wait for it."""


@dataclass(frozen=True)
class Job:
    """What all processes of a training do.

    Parameters
    ----------
    task
        A function of a module.
    arguments
        Its arguments.
    """

    task: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How a process ended: with what its task returned, an error of the user's, or a bug."""

    result: Any = None
    error: SposError | OSError | None = None
    bug: str = ""


def run_job(job: Job) -> Outcome:
    """Do a job, as one of its processes."""
    try:
        with _explained():
            return Outcome(job.task(*job.arguments))
    except (SposError, OSError) as problem:
        return Outcome(error=problem)
    except KeyboardInterrupt:  # which `training_session` makes of every way to be told to end
        return Outcome(error=ProcessError("a process of the training was told to end."))
    except Exception:
        return Outcome(bug=traceback.format_exc())


def check_processes(settings: TrainSettings) -> int:
    """Return how many processes a training has on each machine, before anything else is done.

    Raises
    ------
    RecipeError
        See `count_devices`. Or torchrun or SLURM runs something else in all processes than the
        commands that train.
    """
    number = count_devices(settings)
    if launched() and _followers is None:
        raise RecipeError(
            "under torchrun or srun run 'nni-spos train' or 'nni-spos retrain', which do only once "
            "what is not training."
        )
    return number


def check_training(settings: TrainSettings, image_size: ImageSize) -> None:
    """Refuse settings that do not fit the images or the processes, before anything else is done.

    Parameters
    ----------
    settings
        Of a training.
    image_size
        Of its images, in pixels.

    Raises
    ------
    RecipeError
        See `check_processes` and `TrainSettings.check_sizes`.
    """
    settings.check_sizes(image_size)
    check_processes(settings)


def run_processes(settings: TrainSettings, task: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in as many processes as a training has, and return what rank 0 returns.

    With a single one that is this process. Otherwise processes are started, which end when this
    one does, however it ends; or, in a command of `leading`, they are there already.

    Parameters
    ----------
    settings
        Their number.
    task
        A function of a module.
    arguments
        Its arguments, which can be pickled.

    Raises
    ------
    RecipeError
        See `check_processes`.
    SposError
        What a process raised. The others are ended.
    ProcessError
        A process was killed.
    """
    number = check_processes(settings)
    if number * settings.num_nodes == 1:
        return task(*arguments)
    job = Job(task, arguments)
    if _followers is not None:
        return _followers.lead(job)
    with tempfile.TemporaryDirectory(prefix="nni-spos-") as folder:
        files = [FilePath(folder, str(rank)) for rank in range(number)]
        codes = _run_ranks(job, files)
        # In a folder of this user alone, written by the processes that were started here.
        outcomes = [pickle.loads(f.read_bytes()) if f.exists() else None for f in files]  # nosec B301
    return _result(outcomes, codes)


def _run_ranks(job: Job, files: list[FilePath]) -> list[int]:
    """Run a process for each file, which it writes its outcome to; return their exit codes."""
    content = pickle.dumps(job)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(len(files)), "LOCAL_WORLD_SIZE": str(len(files)), "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank, file in enumerate(files):
            variables = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = subprocess.Popen(
                python_command(MODULE, [str(file)]),
                stdin=subprocess.PIPE,
                env=variables,
                start_new_session=True,  # Ctrl-C is for this process, which ends them
            )
            ranks.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its exit code says more
                process.stdin.write(content)
                process.stdin.flush()
        _wait(ranks)
    finally:
        for process in ranks:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # a process ends at once when nobody holds this
        for process in ranks:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            process.kill()
            process.wait()
    return [process.returncode for process in ranks]


def _wait(ranks: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all processes, or after the first failure for those that soon fail with it."""
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in ranks]
        if None not in codes:
            return
        if deadline == float("inf") and any(codes):
            deadline = time.monotonic() + GRACE_S
        time.sleep(TICK_S)


def _result(outcomes: list[Outcome | None], codes: list[int]) -> Any:
    """Return what rank 0 returned, or raise what is the reason that a process failed."""
    if not any(codes):
        assert outcomes[0] is not None
        return outcomes[0].result
    found = [outcome for outcome in outcomes if outcome is not None]
    errors = [outcome.error for outcome in found if outcome.error is not None]
    for error in errors:
        if not isinstance(error, ProcessError):
            raise error
    bugs = [outcome.bug for outcome in found if outcome.bug]
    if bugs:
        raise RuntimeError("\n".join(dict.fromkeys(bugs)))
    for rank, code in enumerate(codes):
        if code < 0 and outcomes[rank] is None:
            raise ProcessError(
                f"process {rank} of the training was killed by signal {-code}, perhaps for want of "
                "memory. --resume goes on from the last epoch."
            )
    raise errors[0] if errors else ProcessError("a process of the training ended by itself.")


class Followers:
    """The processes that torchrun or SLURM started beside this one, which is rank 0.

    They wait for jobs in PyTorch's store, which all of them reach without a process group. That of
    the first job stays for the others.
    """

    def __init__(self, num_processes: int) -> None:
        self._store = _open_store()
        self._others = range(1, num_processes)
        self._number = 0

    def lead(self, job: Job) -> Any:
        """Let all do a job, and do it here as well."""
        self._tell(pickle.dumps(job))
        with _explained():
            return job.task(*job.arguments)

    def dismiss(self) -> None:
        """Let them end, and wait for it: this process may keep the store that they read."""
        from torch.distributed import DistError

        self._tell(NOTHING)
        with contextlib.suppress(DistError):  # one of them was killed
            self._store.wait([_farewell(rank) for rank in self._others], FAREWELL)

    def _tell(self, content: bytes) -> None:
        self._store.set(_key(self._number), content)
        self._number += 1


NOTHING = b"nothing"
"""In the place of a job."""


def _key(number: int) -> str:
    return f"nni_spos/job/{number}"


def _farewell(rank: int) -> str:
    return f"nni_spos/farewell/{rank}"


_followers: Followers | None = None


@contextlib.contextmanager
def leading() -> Iterator[bool]:
    """Make a command fit for torchrun and SLURM, which run it in all processes of a training.

    Yields
    ------
    True in the only process that is to run the command. In the others it is False, after their
    part of the training, if there was one.
    """
    global _followers
    adopt_slurm()
    place = launched()
    if place is None:
        yield True
    elif place.rank:
        _follow(place.rank)
        yield False
    else:
        _followers = Followers(place.num_processes)
        try:
            yield True
        finally:
            _followers.dismiss()
            _followers = None


def _follow(rank: int) -> None:
    """Do one job after the other, until there are no more."""
    from torch.distributed import DistError

    store = _open_store()
    try:
        _do_jobs(store)
    finally:
        with contextlib.suppress(DistError):
            store.set(_farewell(rank), "")


def _do_jobs(store: Store) -> None:
    from torch.distributed import DistError

    for number in itertools.count():
        try:
            store.wait([_key(number)], PATIENCE)
            content = store.get(_key(number))
        except DistError:
            return  # rank 0 is gone, which said why
        if content == NOTHING:
            return
        # PyTorch's process group, which comes next, trusts its network as much.
        job = pickle.loads(content)  # nosec B301
        with _explained():
            job.task(*job.arguments)


def _open_store() -> Store:
    from torch.distributed import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return store


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say in one line what PyTorch says in many.

    Raises
    ------
    ProcessError
        Another process of the training is gone.
    RecipeError
        A strategy that needs all weights in every step does not get them.
    """
    try:
        yield
    except RuntimeError as problem:
        from torch.distributed import DistError

        if isinstance(problem, DistError) or "gloo" in str(problem):
            raise ProcessError("another process of the training is gone.") from problem
        if "find_unused_parameters" in str(problem):
            raise RecipeError(
                "strategy: ddp needs every weight in every step, and there are paths that do "
                "without some. Give 'auto'."
            ) from problem
        raise
