"""What trials on other machines need, found before NNI starts: NNI's service ``remote``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import CheckpointError, ExperimentError, RecipeError
from nni_spos.experiment.trial_command import recipe_of_trials
from nni_spos.recipe import Recipe

SECRETS = ("password", "sshPassphrase")
"""Keys of a machine whose values NNI shows on its page."""


def is_remote(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's trials run on other machines, by NNI's service ``remote``."""
    return config["trainingService"]["platform"] == "remote"


def check_remote(config: Mapping[str, Any], recipe: Recipe, name: str) -> None:
    """Check that the machines are given what our own trials read.

    Parameters
    ----------
    config
        The configuration, with NNI's defaults.
    recipe
        The tuner's.
    name
        Of the configuration.

    Raises
    ------
    RecipeError
        A file is not among what NNI copies.
    """
    given = recipe_of_trials(config)
    if given is None or os.path.isabs(os.path.expanduser(given)):
        return  # the user says that the files are there
    folder = FilePath(config["trainingService"]["trialCodeDirectory"]).resolve()
    for file in (recipe.file, *recipe.latency):
        if not file.resolve().is_relative_to(folder):
            raise RecipeError(
                f"{name}: {file} is outside of trialCodeDirectory, {folder}, which is all that "
                "NNI copies to the machines."
            )


def remote_warnings(config: Mapping[str, Any], recipe: Recipe, name: str) -> list[str]:
    """Return what is allowed but perhaps not meant, a sentence each. Parameters as before."""
    warnings = [
        f"{name}: machineList: NNI's page, which has no password itself, shows the {key} of "
        f"{machine['host']}; give an sshKeyFile without one instead."
        for machine in config["trainingService"]["machineList"]
        for key in SECRETS
        if machine.get(key) is not None
    ]
    if problem := _missing_supernet(config, recipe):
        warnings.append(problem)
    return warnings


def check_trained(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Check that there is a supernet for the trials; each machine would need to train its own.

    Raises
    ------
    CheckpointError
        There is none.
    """
    if problem := _missing_supernet(config, recipe):
        raise CheckpointError(problem)


def check_within_reach(config: Mapping[str, Any], port: int) -> None:
    """Check that the machines reach a manager that listens on the loopback interface alone.

    Raises
    ------
    ExperimentError
        They look for it at another address.
    """
    host = config["trainingService"]["nniManagerIp"]
    if not _is_loopback(host):
        raise ExperimentError(
            f"the machines would look for NNI's manager at {host}, and without --public it can be "
            "reached from this machine alone. With --public everybody who reaches that address "
            "can read and stop the experiment. Without: set 'nniManagerIp: 127.0.0.1' and open a "
            f"tunnel to each machine, ssh -N -R {port}:127.0.0.1:{port} USER@MACHINE."
        )


def _missing_supernet(config: Mapping[str, Any], recipe: Recipe) -> str | None:
    """Say that our own trials will miss the supernet, or return None."""
    if recipe_of_trials(config) is None or recipe.checkpoint.exists():
        return None
    return (
        f"{recipe.checkpoint}: no such checkpoint. Trials on other machines fetch the supernet "
        "and never train it. Train it first: nni-spos train RECIPE."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
