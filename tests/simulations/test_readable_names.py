"""Names as people write them: of all that can be named, and of what others add."""

import pytest

from flsec.client_apps import ATTACKS
from flsec.data import DATASETS
from flsec.models import MODELS
from flsec.simulations.readable_names import distinct_labels, readable, readable_measure
from flsec.strategies import DEFENSES


@pytest.mark.parametrize("registry", [DEFENSES, ATTACKS, DATASETS, MODELS], ids=lambda r: r.kind)
def test_every_name_reads_well_and_no_two_read_the_same(registry):
    names = [readable(name) for name in registry.names()]
    assert len(names) > 5
    assert len(set(names)) == len(names)
    assert not [name for name in names if "_" in name or not name.strip()]


@pytest.mark.parametrize("registry", [DEFENSES, ATTACKS], ids=lambda r: r.kind)
def test_a_class_and_its_name_in_yaml_read_the_same(registry):
    for name in registry.names():
        assert readable(registry.get(name).__name__) == readable(name), name


def test_lists_that_differ_in_a_parameter_are_told_apart_by_it_and_by_nothing_else():
    lists = [[{"name": "krum", "f": f, "g": 1}] for f in (1, 2)] + [
        [{"name": "krum", "f": 1, "g": 1}, {"name": "median"}],
        [],
    ]
    labels = list(distinct_labels(lists, "none").values())
    assert labels == ["Krum (f 1)", "Krum (f 2)", "Krum + median", "none"]


def test_measures_read_well():
    assert readable_measure("psnr") == "PSNR"
    assert readable_measure("source_to_target_3_9") == "class 3 taken for 9"
    assert readable_measure("other_measure") == "other measure"
