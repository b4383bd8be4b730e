"""Write the search-space files of this folder, for ``searchSpaceFile`` of an NNI configuration.

Run ``python search_spaces/generate.py`` after a change to a space.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from nni_spos.path import PathSpace
from nni_spos.spaces import SPACES

FOLDER = Path(__file__).parent


def search_spaces() -> Iterator[tuple[Path, str]]:
    """Yield the file and its text for every space."""
    for name in SPACES.ours:
        space = PathSpace.from_model_space(SPACES.find(name)())
        yield FOLDER / f"{name}.json", json.dumps(space.to_search_space(), indent=1) + "\n"


if __name__ == "__main__":
    for file, text in search_spaces():
        file.write_text(text, encoding="utf-8")
