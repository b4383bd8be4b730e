import pytest
from small import FakeManager, write_recipe


@pytest.fixture
def recipe_file(tmp_path):
    return write_recipe(tmp_path)


@pytest.fixture
def manager():
    manager = FakeManager()
    yield manager
    manager.close()
