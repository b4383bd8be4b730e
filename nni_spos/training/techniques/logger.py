"""Another logger than TensorBoard: ``logger``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import TEXT, one_of, optional, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

NEEDS = {"mlflow": "mlflow", "wandb": "wandb"}
"""Packages that a logger needs, which are extras of nni_spos of these names."""


class OtherLogger(Technique):
    """Log loss, accuracy and learning rate with one of Lightning's loggers."""

    title = "logger"
    decides = False

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        logger
            What logs the training.
        logger_uri
            Tracking server, or store, of MLflow; by default MLFLOW_TRACKING_URI, else the folder
            of the logs.
        logger_project
            Experiment of MLflow, or project of Weights & Biases, that the training is a run of.
        """

        logger: str = setting(one_of("tensorboard", "csv", "mlflow", "wandb"), "tensorboard")
        logger_uri: str | None = setting(optional(TEXT), None)
        logger_project: str = setting(TEXT, "nni_spos")

        def __post_init__(self) -> None:
            if self.logger_uri is not None and self.logger != "mlflow":
                raise RecipeError("logger_uri: is for logger: mlflow. Leave it out.")

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """TensorBoard logs without this technique."""
        return settings.logger != "tensorboard"

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        from importlib.util import find_spec

        package = NEEDS.get(settings.logger)
        if package and find_spec(package) is None:
            raise RecipeError(
                f"logger: {settings.logger} is not installed. Install nni_spos with its extra: "
                f"pip install 'nni_spos[{package}]'."
            )

    def logger(self, folder: FilePath) -> Logger:
        from pytorch_lightning import loggers

        settings, kind = self.settings, self.settings.logger
        if kind == "csv":
            # A resumed training begins a new file: Lightning would delete the earlier one.
            return loggers.CSVLogger(folder.parent, name=folder.name)
        name = folder.parent.name
        if kind == "mlflow":
            uri = settings.logger_uri or os.environ.get("MLFLOW_TRACKING_URI")
            if uri is None:
                uri = folder.resolve().as_uri()
                # MLflow asks for this consent since it would rather have a database.
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            return loggers.MLFlowLogger(settings.logger_project, name, tracking_uri=uri)
        folder.mkdir(parents=True, exist_ok=True)
        return loggers.WandbLogger(name, folder, project=settings.logger_project)
