"""What setup.cfg cannot say: the package also has two folders that lie beside it."""

from setuptools import find_packages, setup

# They stay at the top, where whoever has the repository looks for them, and exist once.
BESIDE = ["examples", "search_spaces"]

setup(
    packages=[*find_packages(include=["nni_spos*"]), *(f"nni_spos.{x}" for x in BESIDE)],
    package_dir={f"nni_spos.{x}": x for x in BESIDE},
)
