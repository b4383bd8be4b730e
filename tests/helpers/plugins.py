"""Packages with entry points, as pip installs them."""

from __future__ import annotations

from pathlib import Path


def install_plugin(folder: Path, package: str, entry_points: dict[str, dict[str, str]], **modules):
    """Write what pip installs of a package into a folder: its metadata and its modules.

    Parameters
    ----------
    folder
        Of installed packages; put it into Python's path.
    package
        Its name; the version is 1.0.
    entry_points
        Group to name to ``module:Name``.
    modules
        Name of each module to its code.
    """
    information = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = []
    for group, names in entry_points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
