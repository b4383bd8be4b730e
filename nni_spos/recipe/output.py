"""Every file and folder that is written into the output folder of a recipe.

Nothing else spells these names: to know what a command leaves, or who reads it, look for a property
of `Output` or `SearchFolder`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath


@dataclass(frozen=True)
class SearchFolder:
    """The folder of a search: one in the output folder, or ``checkpoint`` of an NNI experiment.

    Parameters
    ----------
    path
        The folder, which need not be there.
    """

    path: FilePath

    @property
    def journal(self) -> FilePath:
        """Every candidate and its results, one a line, and what they depend on."""
        return self.path / "search.jsonl"

    @property
    def first_paths(self) -> FilePath:
        """What a search begins with, if each choice was tried alone before it."""
        return self.path / "first_paths.json"

    @property
    def record(self) -> FilePath:
        """The recipe of the search, what it cost so far, and what its trials warned of."""
        return self.path / "run.json"

    @property
    def lock(self) -> FilePath:
        """Held by the process that searches."""
        return self.path / ".lock"

    @property
    def curves(self) -> FilePath:
        """The objective by generation: of the best candidate so far, and on average."""
        return self.path / "curves.png"

    def report(self, format: str) -> FilePath:
        """``report.html`` or ``report.md``: what the search found, how, and what it cost."""
        return self.path / f"report.{format}"


@dataclass(frozen=True)
class Output:
    """The output folder of a recipe.

    Parameters
    ----------
    folder
        The folder, which need not be there.
    """

    folder: FilePath

    @property
    def costs(self) -> FilePath:
        """Cost tables of the space: multiply-adds, parameters, BitOps and bytes."""
        return self.folder / "costs.json"

    @property
    def costs_lock(self) -> FilePath:
        """Held by the process that builds the cost tables."""
        return self.folder / "costs.lock"

    @property
    def supernet(self) -> FilePath:
        """The supernet that was trained last: weights, space and how images are prepared."""
        return self.folder / "supernet.pt"

    @property
    def kept_supernets(self) -> FilePath:
        """Supernets that searches keep, whatever is trained later, each named by its digest."""
        return self.folder / "supernets"

    def kept_supernet(self, digest: str) -> FilePath:
        """The supernet with these weights."""
        return self.kept_supernets / f"{digest}.pt"

    def experiment(self, experiment_id: str) -> FilePath:
        """Which supernet an NNI experiment keeps."""
        return self.kept_supernets / f"{experiment_id}.json"

    @property
    def kept_supernets_lock(self) -> FilePath:
        """Held by the process that notes which supernet an experiment keeps."""
        return self.kept_supernets / ".lock"

    @property
    def fetch_lock(self) -> FilePath:
        """Held on another machine by the trial that fetches the supernet."""
        return self.folder / "fetch.lock"

    @property
    def images(self) -> FilePath:
        """Decoded images that do not fit into memory."""
        return self.folder / "images"

    @property
    def normalisation(self) -> FilePath:
        """Mean and standard deviation of the training images, where they are measured."""
        return self.folder / "normalisation.json"

    @property
    def normalisation_lock(self) -> FilePath:
        """Held by the process that measures them."""
        return self.folder / "normalisation.lock"

    @property
    def scores(self) -> FilePath:
        """Scores of paths, shared by all searches of a supernet."""
        return self.folder / "scores"

    def scores_of(self, digest: str) -> FilePath:
        """Scores that depend on what has this digest."""
        return self.scores / f"{digest}.jsonl"

    @property
    def search(self) -> SearchFolder:
        """The search of ``nni-spos search``."""
        return self.search_in("search")

    def search_in(self, name: str) -> SearchFolder:
        """A search of another name: one supernet serves many."""
        return SearchFolder(self.folder / name)

    def landmarks(self, number: int) -> SearchFolder:
        """So many paths that ``nni-spos landmarks`` has trained, as a search."""
        return self.search_in(f"landmarks_{number}")

    def searches(self) -> Iterator[SearchFolder]:
        """Yield the searches that are there, by name."""
        for journal in sorted(self.folder.glob(f"*/{self.search.journal.name}")):
            yield SearchFolder(journal.parent)

    @property
    def workers(self) -> FilePath:
        """What the processes left that score paths for NNI trials."""
        return self.folder / "workers"

    def worker(self, digest: str) -> FilePath:
        """Log and identity of the worker whose identity has this digest."""
        return self.workers / digest

    @property
    def retrained(self) -> FilePath:
        """The retrained network, unless another file is asked for."""
        return self.folder / "retrained.pt"

    @property
    def exported(self) -> FilePath:
        """The retrained network as a file that runs without this package, and what it is worth."""
        return self.folder / "exported"

    @property
    def compression(self) -> FilePath:
        """What ``nni-spos compress`` made of a network: costs, figures and units, side by side."""
        return self.folder / "compression.md"

    @property
    def compression_diagram(self) -> FilePath:
        """The units of a network that ``nni-spos compress`` made smaller, before and after."""
        return self.folder / "compression.svg"

    @property
    def teachers(self) -> FilePath:
        """Networks of the space's largest path, which others are trained to agree with."""
        return self.folder / "teachers"

    def teacher(self, digest: str) -> FilePath:
        """The teacher whose training depends on what has this digest."""
        return self.teachers / f"{digest}.pt"

    @property
    def baselines(self) -> FilePath:
        """Networks that the winner is compared with, each a network and its results."""
        return self.folder / "baselines"

    @property
    def baseline_table(self) -> FilePath:
        """The winner and its baselines, as Markdown."""
        return self.baselines / "table.md"

    def baseline(self, name: str) -> FilePath:
        """The retrained network of a baseline; its results are in the JSON file beside it."""
        return self.baselines / f"{name}.pt"

    @property
    def standalone(self) -> FilePath:
        """Accuracies of paths that were each trained from scratch."""
        return self.folder / "standalone"

    @property
    def standalone_lock(self) -> FilePath:
        """Held by the process that trains paths from scratch."""
        return self.standalone / ".lock"

    def standalone_of(self, digest: str) -> FilePath:
        """Accuracies that depend on what has this digest."""
        return self.standalone / f"{digest}.jsonl"


def search_of_experiment(folder: FilePath) -> SearchFolder:
    """Return the folder of an NNI experiment's search: NNI's place for what a tuner keeps."""
    return SearchFolder(folder / "checkpoint")


def training_folder(file: str | os.PathLike[str]) -> FilePath:
    """Return the folder beside trained weights: checkpoints of their training, and its logs."""
    return FilePath(file).with_suffix("")


def training_curves(folder: FilePath) -> FilePath:
    """Return the picture of a training's curves, in the folder of its checkpoints."""
    return folder / "curves.png"


def results_beside(network: FilePath) -> FilePath:
    """Return the JSON file of a network's results."""
    return network.with_suffix(".json")


def repetition(file: FilePath, seed: int) -> FilePath:
    """Return the file of a training that was repeated with another seed."""
    return file.with_name(f"{file.stem}_seed{seed}{file.suffix}")


def exported_folder(network: FilePath) -> FilePath:
    """Return the folder that a network is exported to, unless another one is asked for."""
    return Output(network.parent).exported


def exported_figures(folder: FilePath) -> FilePath:
    """Return the JSON file of what an exported network is: costs, hashes, how it was compared."""
    return folder / "export.json"


def exported_speed(folder: FilePath) -> FilePath:
    """Return the JSON file of what ``nni-spos benchmark`` measured of an exported network."""
    return folder / "benchmark.json"
