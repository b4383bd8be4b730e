"""The supernet of a search stays its own, whoever trains another one meanwhile.

``OUTPUT/supernet.pt`` is the supernet that was trained last. A search that reads it more than once
gives it a second name first, ``OUTPUT/supernets/DIGEST.pt``, and reads that. An NNI experiment
notes which one that is in ``OUTPUT/supernets/EXPERIMENT.json``, so that its tuner and all its
trials, also those of a resumed experiment, use the same.

The second name is a link where the file system has links: it takes no room until another supernet
is trained, since whatever is written here is a new file. Whoever writes into the file under either
name is noticed: the digest is that of another content, which is refused. Nothing here is deleted,
because nobody can know which experiments are to be resumed.

Needs neither PyTorch nor NNI, so that the tuner and trials can ask.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import tempfile
import warnings
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files.archives import check_archive, reason_of
from nni_spos.files.atomic import previous, read_json, write_json
from nni_spos.files.digests import digest_open_weights, digest_weights
from nni_spos.files.locks import exclusive
from nni_spos.recipe.recipe import Recipe
from nni_spos.values import DIGEST

WEIGHTS = "weights"
"""Key of the digest in the note of an experiment."""

EXPERIMENT, TRIAL = "NNI_EXP_ID", "NNI_TRIAL_JOB_ID"
"""What NNI tells its trials: the ids of their experiment and of themselves."""


def keep_supernet(recipe: Recipe) -> Recipe:
    """Return a recipe with the supernet that it has now, whatever is trained later.

    Without a supernet, or with one that is kept already, it is the same recipe.

    Warns
    -----
    FileWarning
        The supernet is damaged, and the one that it replaced is kept instead; or the output folder
        cannot be written to, and the supernet is used where it is.

    Raises
    ------
    CheckpointError
        It is damaged, and so is the one that it replaced, if there is any.
    """
    if recipe.kept is not None:
        return recipe
    file, before = recipe.checkpoint, previous(recipe.checkpoint)
    folder = recipe.files.kept_supernets
    try:
        return dataclasses.replace(recipe, kept=_keep(file, folder))
    except FileNotFoundError:
        return recipe
    except OSError as problem:
        if problem.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        text = f"{folder}: the supernet is not kept ({problem.strerror}): train no other meanwhile."
        warnings.warn(text, FileWarning, stacklevel=2)
        return recipe
    except CheckpointError as problem:
        try:
            kept = _keep(before, folder)
        except (FileNotFoundError, CheckpointError):
            raise problem from None
        text = f"{problem} Using {before.name}, which it replaced."
        warnings.warn(text, FileWarning, stacklevel=2)
        return dataclasses.replace(recipe, kept=kept)


def keep_for_experiment(recipe: Recipe, experiment_id: str) -> Recipe:
    """Return a recipe with the supernet of an NNI experiment: the one that it had first.

    Without a supernet it is the same recipe.

    Parameters
    ----------
    recipe
        Of the experiment.
    experiment_id
        NNI's id of it.

    Raises
    ------
    CheckpointError
        See `keep_supernet`; or the supernet that was kept is not there any more.
    """
    if recipe.kept is not None:
        return recipe
    if (noted := noted_for_experiment(recipe, experiment_id)) is not None:
        return noted
    kept = keep_supernet(recipe)
    if kept.kept is None:
        return recipe
    note = recipe.files.experiment(experiment_id)
    refusal = CheckpointError(f"{note}: another process is writing it.")
    with exclusive(recipe.files.kept_supernets_lock, timeout=-1, refusal=refusal):
        if not note.exists():
            write_json(note, {WEIGHTS: kept.kept})
    return noted_for_experiment(recipe, experiment_id) or kept


def noted_for_experiment(recipe: Recipe, experiment_id: str) -> Recipe | None:
    """Return a recipe with the supernet that an experiment has kept; None if it has none yet.

    Raises
    ------
    CheckpointError
        It is not there any more, or the note of it is damaged.
    """
    note = recipe.files.experiment(experiment_id)
    if not note.exists():
        return None
    content = read_json(note, CheckpointError)
    digest = content.get(WEIGHTS) if isinstance(content, dict) else None
    if not isinstance(digest, str) or not digest.isalnum():
        raise CheckpointError(f"{note}: is damaged. Start a new experiment.")
    kept = dataclasses.replace(recipe, kept=digest)
    if not kept.checkpoint.exists():
        _restore(recipe, kept)
    return kept


def keep_for_trial(recipe: Recipe) -> Recipe:
    """Return a recipe with the supernet of the experiment of which this process is a trial.

    Outside of NNI, and on another machine than the tuner's, it is the same recipe.
    """
    is_here = os.environ.get("NNI_PLATFORM") == "local"
    if is_here and TRIAL in os.environ and EXPERIMENT in os.environ:
        return keep_for_experiment(recipe, os.environ[EXPERIMENT])
    return recipe


def with_kept(recipe: Recipe, weights: Any) -> Recipe:
    """Return a recipe with the supernet of a search, if that was kept and is there.

    Parameters
    ----------
    recipe
        Of the search.
    weights
        The part of this name in its journal, whatever that says.
    """
    digest = weights.get(DIGEST) if isinstance(weights, dict) else None
    if not isinstance(digest, str) or not digest.isalnum():
        return recipe
    kept = dataclasses.replace(recipe, kept=digest)
    return kept if kept.checkpoint.exists() else recipe


def check_kept(recipe: Recipe, digest: str) -> None:
    """Refuse what was read as the supernet of a recipe if it is not the one that was kept.

    Parameters
    ----------
    recipe
        Perhaps with a supernet that was kept.
    digest
        Of what was read, see `nni_spos.files.digests.digest_open_weights`.

    Raises
    ------
    CheckpointError
        Somebody wrote into the file.
    """
    if recipe.kept not in (None, digest):
        raise CheckpointError(
            f"{recipe.checkpoint}: was written into: its weights have the digest {digest} now. "
            "Put the right file there, or start a new search."
        )


def _restore(recipe: Recipe, kept: Recipe) -> None:
    """Keep the supernet again that somebody deleted, if it is still the one trained last."""
    if digest_weights(recipe.checkpoint) != kept.kept:
        raise CheckpointError(
            f"{kept.checkpoint}: is not there any more, with which the candidates so far were "
            "scored. Put it back, or start a new experiment."
        )
    _keep(recipe.checkpoint, kept.checkpoint.parent)


def _keep(file: FilePath, folder: FilePath) -> str:
    """Give a supernet a name in a folder that is its digest, and return this.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        It is damaged.
    """
    os.stat(file)  # before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    # First the second name, then the digest of what has it: nobody replaces that.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
        copy = FilePath(place) / file.name
        _link(file, copy)
        digest = _digest(file, copy)
        if digest_weights(folder / f"{digest}.pt") != digest:
            os.replace(copy, folder / f"{digest}.pt")
    return digest


def _link(file: FilePath, copy: FilePath) -> None:
    try:
        os.link(os.path.realpath(file), copy)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or another user's file
        shutil.copyfile(file, copy)


def _digest(file: FilePath, copy: FilePath) -> str:
    try:
        with open(copy, "rb") as stream:
            check_archive(stream)
            return digest_open_weights(stream)
    except Exception as problem:  # whatever a file that is no archive makes of its reading
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason_of(problem)}).") from None
