from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no reason to fail.
settings.register_profile("nni_spos", deadline=None)
settings.load_profile("nni_spos")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def nas_bench_macro_file():
    """The published table, which lies beside the repository where it is."""
    file = SHARED_DATA / "nas-bench-macro_cifar10.json"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    return file
