"""How many processes train together, and what torchrun or SLURM told this one."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass

from nni_spos.errors import RecipeError
from nni_spos.recipe.training_settings import TrainSettings


@dataclass(frozen=True)
class Launched:
    """The place of a process among those that were started together.

    Parameters
    ----------
    rank
        Its number; 0 is the one that writes files.
    num_processes
        On all machines.
    num_local
        On this one.
    """

    rank: int
    num_processes: int
    num_local: int

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self.num_processes // self.num_local


def launched() -> Launched | None:
    """Return the place of this process, or None if it was started alone.

    It is read from the variables that torchrun sets, which the processes of `run_processes` have
    as well, and those of SLURM after `adopt_slurm`.
    """
    try:
        place = Launched(
            int(os.environ["RANK"]),
            int(os.environ["WORLD_SIZE"]),
            int(os.environ["LOCAL_WORLD_SIZE"]),
        )
    except (KeyError, ValueError):
        return None
    return place if place.num_processes > 1 else None


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    place = launched()
    return place is None or place.rank == 0


def adopt_slurm(variables: MutableMapping[str, str] = os.environ) -> None:
    """Give a process that ``srun`` started the variables that it has under torchrun."""
    # What is set for a whole job would be there also where nothing but the batch script runs.
    num_tasks = int(variables.get("SLURM_STEP_NUM_TASKS", "1"))
    if num_tasks == 1 or "RANK" in variables:
        return
    from lightning_fabric.plugins.environments import SLURMEnvironment

    num_nodes = int(variables.get("SLURM_STEP_NUM_NODES", "1"))
    first = variables.get("SLURM_STEP_NODELIST", "127.0.0.1")
    variables.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(first))
    # Every process has to know the port: as Lightning does, one that the job's number gives.
    variables.setdefault("MASTER_PORT", str(15_000 + int(variables["SLURM_JOB_ID"]) % 10_000))
    variables["RANK"] = variables["SLURM_PROCID"]
    variables["WORLD_SIZE"] = str(num_tasks)
    variables["LOCAL_RANK"] = variables["SLURM_LOCALID"]
    variables["LOCAL_WORLD_SIZE"] = str(num_tasks // num_nodes)
    variables["GROUP_RANK"] = variables["SLURM_NODEID"]


def count_devices(settings: TrainSettings) -> int:
    """Return how many devices a training uses on each machine.

    Raises
    ------
    RecipeError
        There are not so many GPUs, a launcher started another number of processes, there is none
        for several machines, or the processes cannot share a batch evenly.
    """
    import torch  # takes long: `launched` tells the rest without it

    adopt_slurm()
    place = launched()
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.devices == "auto":
        number = place.num_local if place else max(1, num_gpus)
    else:
        number = int(settings.devices)
    if place and (number, settings.num_nodes) != (place.num_local, place.num_nodes):
        raise RecipeError(
            f"devices: {number} on num_nodes: {settings.num_nodes} is not what was launched: "
            f"{place.num_local} processes on {place.num_nodes} nodes. Make them agree, or give "
            "'devices: auto'."
        )
    if place is None and settings.num_nodes > 1:
        raise RecipeError(
            f"num_nodes: {settings.num_nodes} needs a launcher on every machine: torchrun or srun."
        )
    if num_gpus and number > num_gpus:
        raise RecipeError(
            f"devices: got {number}, but {num_gpus} GPUs are visible. Give at most that, or 'auto'."
        )
    settings.check_split(number * settings.num_nodes)
    return number
