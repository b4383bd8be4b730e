"""The page of a project: what its files are, and what to run."""

from __future__ import annotations

from collections.abc import Sequence

from nni_spos.project.examples import Example

FILES = {
    "recipe.yml": "the run: network, images, training, and the limits of the search",
    "spos.yml": "NNI's configuration of the search",
    "search_space.json": (
        "the choices, for NNI. After a change of the network or of `space`, write it again: "
        "`nni-spos space recipe.yml --output search_space.json`"
    ),
    "make_images.py": "draws images to try the project with",
    "network.py": "the network, which knows of no search",
    "pretrain.py": "trains the network",
    "shapes.py": "the images and their masks",
    "crosses.py": "the images, and what is to be predicted",
}
OWN_FILE = "the network and its choices"
"""What each file of a project is for; any other one is the user's network."""

STAGES = (
    "check all files; try each stage on generated images",
    "train the supernet: all networks, with shared weights",
    "search with NNI; best.json is the best path",
    "train the best path from scratch, and test it",
)
"""What the commands do, in their order."""

LOADING = """```python
from nni_spos import load_network

trained = load_network("output/retrained.pt")
```"""


def readme(title: str, example: Example, files: Sequence[str], commands: Sequence[str]) -> str:
    """Return the page, in Markdown.

    Parameters
    ----------
    title
        Heading.
    example
        What the project began with.
    files
        Names of its files.
    commands
        What to run, a command for each of `STAGES`.
    """
    width = max(map(len, commands))
    steps = [f"{x:<{width}}  # {what}" for x, what in zip(commands, STAGES, strict=True)]
    parts = [
        f"# {title}",
        f"A search with nni_spos: {example.about}. All stages take {example.takes}.",
        "## Files",
        "\n".join(f"- `{name}`: {FILES.get(name, OWN_FILE)}" for name in files),
    ]
    if example.images:
        title = "Images" if example.name != "compress" else "Network"
        parts += [f"## {title}", example.images]
    if example.name == "remote":
        parts += ["## Machines", "First change the addresses and the users in `spos.yml`."]
    parts += [
        "## What to run",
        "In this folder, in this order:",
        "\n".join(["```sh", *steps, "```"]),
        "`output/retrained.pt` is the network:",
        LOADING,
    ]
    return "\n\n".join(parts)
