import json
import shutil
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent


@pytest.fixture
def tiny(tmp_path):
    """The tiny experiment, in a folder of its own."""
    for name in ("tiny.yml", "tiny_recipe.yml"):
        shutil.copy(HERE / name, tmp_path)
    return tmp_path / "tiny.yml"


@pytest.fixture
def change(tiny):
    """Change the content of the experiment's file in place."""

    def run(how):
        content = yaml.safe_load(tiny.read_text())
        how(content)
        tiny.write_text(json.dumps(content))
        return tiny

    return run
