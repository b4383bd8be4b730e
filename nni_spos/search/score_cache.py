"""Scores of paths on the disk, so that no search pays for a path that another one scored.

A supernet is trained once and searched under many constraints. What a path scores depends on the
supernet, the images and the settings of the evaluation alone, so searches share their scores.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Mapping
from pathlib import Path as FilePath

from nni_spos.errors import FileWarning
from nni_spos.files.digests import digest_content
from nni_spos.files.owned import NotOwnError, open_own
from nni_spos.files.sealing import open_record, seal_record
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe

NUM_IMAGES = "num_images"
"""Name of the number of images that results are of, where that is not all for each path."""


class ScoreCache:
    """Results by path, in a file that grows by a line for each path.

    Several processes of a user may use it at a time. A line that was cut off, or whose hash is
    another one, counts as not there; so does a whole file that is a link, or another user's.

    Parameters
    ----------
    file
        Where they are kept; made with the first result.
    space
        Labels and their choices.
    """

    def __init__(self, file: FilePath, space: PathSpace):
        self.file = file
        self._space = space
        self._results: dict[tuple[int, ...], dict[str, float]] = {}
        self._read_bytes = 0

    def get(self, path: Mapping[str, Choice]) -> dict[str, float] | None:
        """Return the results of a path, or None. Raises PathError."""
        self._read()
        found = self._results.get(self._space.key(path))
        return None if found is None else dict(found)

    def items(self) -> list[tuple[Path, dict[str, float]]]:
        """Return all paths and their results, in the order of the space."""
        self._read()
        keys = sorted(self._results)
        results = [dict(self._results[key]) for key in keys]
        return list(zip(self._space.decode(keys), results, strict=True)) if keys else []

    def put(self, path: Mapping[str, Choice], results: Mapping[str, float]) -> None:
        """Keep the results of a path. Raises OSError if the file system refuses."""
        # One write to the end of the file: lines of other processes are not mixed into it. It
        # begins with a line break, in case that a killed process left half a line.
        line = b"\n" + seal_record({"path": dict(path), "results": dict(results)})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle = open_own(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            if os.write(handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as problem:
            problem.filename = os.fspath(self.file)
            raise
        finally:
            os.close(handle)

    def put_if_possible(self, path: Mapping[str, Choice], results: Mapping[str, float]) -> None:
        """Keep the results of a path that can be had again; warn if the file system refuses."""
        try:
            self.put(path, results)
        except OSError as problem:
            text = f"{self.file}: scores are not kept ({problem.strerror})."
            warnings.warn(text, FileWarning, stacklevel=2)

    def _read(self) -> None:
        """Read what this and other processes have added."""
        try:
            with open(open_own(self.file, os.O_RDONLY), "rb") as stream:
                stream.seek(self._read_bytes)
                content = stream.read()
        except (FileNotFoundError, NotOwnError):
            return
        whole = content.rfind(b"\n") + 1
        self._read_bytes += whole
        for line in content[:whole].splitlines():
            with contextlib.suppress(Exception):  # whatever is wrong with it, it holds no result
                entry, _ = open_record(line)
                results = {name: float(value) for name, value in entry["results"].items()}
                self._results[self._space.key(entry["path"])] = results


def open_score_cache(recipe: Recipe, space: PathSpace, weights: str) -> ScoreCache:
    """Return the scores of a supernet, under ``OUTPUT/scores``.

    The file's name is a digest of all that decides a score, see `nni_spos.recipe.identity`.

    Parameters
    ----------
    recipe
        Of the supernet.
    space
        Labels and their choices.
    weights
        Digest of the weights that were read, see `nni_spos.supernet.SupernetCheckpoint`.
    """
    name = digest_content(describe(Result.SCORES, recipe, weights))
    return ScoreCache(recipe.files.scores_of(name), space)
