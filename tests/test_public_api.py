"""The public names: adding or removing one is a decision, and this list is where it is taken."""

import types

import bayesmeta as bm


def test_public_names_are_these() -> None:
    found = {n for n, v in vars(bm).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    assert found == set(bm.__all__) - {"plotting", "heads"}


def test_every_public_name_has_a_docstring() -> None:
    for name in bm.__all__:
        assert getattr(bm, name).__doc__, name


def test_plotting_is_there() -> None:
    assert callable(bm.plotting.predictive_bands)
