"""Check what trials on other machines need before NNI starts (NNI's service ``remote``)."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import CheckpointError, ExperimentError, RecipeError
from nni_spos.experiment.trial_command import recipe_of_trials
from nni_spos.recipe.recipe import Recipe

SECRETS = ("password", "sshPassphrase")
"""Keys of a machine that NNI's page shows to everybody."""


def is_remote(config: Mapping[str, Any]) -> bool:
    """Whether the trials run on other machines."""
    return config["trainingService"]["platform"] == "remote"


def check_remote(config: Mapping[str, Any], recipe: Recipe, name: str) -> None:
    """Check that NNI copies all files that our own trials read.

    Parameters
    ----------
    config
        The configuration, with NNI's defaults.
    recipe
        The recipe of the tuner.
    name
        Name of the configuration, for messages.

    Raises
    ------
    RecipeError
        NNI does not copy one of the files.
    """
    given = recipe_of_trials(config)
    if given is None or os.path.isabs(os.path.expanduser(given)):
        return  # the user put the files there
    folder = FilePath(config["trainingService"]["trialCodeDirectory"]).resolve()
    for file in (recipe.file, *recipe.latency):
        if not file.resolve().is_relative_to(folder):
            raise RecipeError(
                f"{name}: {file} is outside of trialCodeDirectory, {folder}. NNI copies only that "
                "folder to the machines. Move the file into it."
            )


def remote_warnings(config: Mapping[str, Any], recipe: Recipe, name: str) -> list[str]:
    """Return warnings, a sentence each. Parameters as for `check_remote`."""
    warnings = [
        f"{name}: machineList: NNI's page has no password and shows the {key} of "
        f"{machine['host']}. Give an sshKeyFile that needs none."
        for machine in config["trainingService"]["machineList"]
        for key in SECRETS
        if machine.get(key) is not None
    ]
    if problem := _missing_supernet(config, recipe):
        warnings.append(problem)
    return warnings


def check_trained(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Check that the supernet is trained. Trials on other machines do not train it.

    Raises
    ------
    CheckpointError
        There is no supernet.
    """
    if problem := _missing_supernet(config, recipe):
        raise CheckpointError(problem)


def check_within_reach(config: Mapping[str, Any], port: int) -> None:
    """Check that the machines can reach a manager that only this machine can reach.

    Raises
    ------
    ExperimentError
        They would look for it at another address.
    """
    host = config["trainingService"]["nniManagerIp"]
    if not _is_loopback(host):
        raise ExperimentError(
            f"the machines would look for NNI's manager at {host}. Without --public only this "
            "machine can reach it. Set 'nniManagerIp: 127.0.0.1' and open a tunnel to each "
            f"machine, ssh -N -R {port}:127.0.0.1:{port} USER@MACHINE. Or use --public: then "
            "everybody who can reach that address can read and stop the experiment."
        )


def _missing_supernet(config: Mapping[str, Any], recipe: Recipe) -> str | None:
    """Return a message if our own trials need a supernet that is not there, else None."""
    if recipe_of_trials(config) is None or recipe.checkpoint.exists():
        return None
    return (
        f"{recipe.checkpoint}: no such checkpoint. Trials on other machines fetch the supernet "
        "and do not train it. Train it first: nni-spos train RECIPE."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
