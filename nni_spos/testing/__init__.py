"""Contract suites: what every component of a kind promises, for components of one's own too.

A module for each kind. Its `CHECKS` are functions of one case, which raise `AssertionError` with
what is wrong; none needs pytest. With pytest they are tests of their own::

    import pytest
    from nni_spos.testing import datasets

    @pytest.mark.parametrize("check", datasets.CHECKS)
    def test_my_data(check):
        check(datasets.DatasetCase("my_data:MyData", folder="recipes"))

Our own components pass the same suites, in ``tests/contracts``.
"""
