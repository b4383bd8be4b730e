"""Our formats keep the promises of every format."""

import pytest

from nni_spos.recipe.registries import EXPORTERS
from nni_spos.testing.exporters import CHECKS, ExporterCase

CASES = {name: ExporterCase(name) for name in EXPORTERS.ours}
CASES["onnx in int8"] = ExporterCase("onnx", quantize="int8")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.slow
def test_the_contract_of_formats(check, name):
    check(CASES[name])
