import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, group_norm

from flsec.errors import ConfigError
from flsec.models import DARTSCell, build_model
from flsec.models.darts_cell import OPERATIONS


def model(**settings):
    network = build_model("darts_cell", (2, 5, 4), 3, seed=0, **{"nodes": 3, "cells": 2, "channels": 4, **settings})
    network = network.double()
    with torch.no_grad():
        network.alpha.copy_(torch.randn(network.alpha.shape, generator=torch.Generator().manual_seed(1)))
    return network


def cell_by_hand(network, number, maps, nodes):
    """A cell by its definition: node j is the sum over i < j of what the mix on (i, j) makes of node i."""
    values, shares = [maps], network.alpha.softmax(dim=1)
    for end in range(1, nodes + 1):
        total = torch.zeros_like(maps)
        for start in range(end):
            edge = network.edges.index((start, end))
            share, x = shares[edge], values[start]
            for name, operation in zip(OPERATIONS[1:], network.cells[number][edge], strict=True):
                if name == "skip":
                    out = x
                elif name == "avg_pool_3x3":
                    out = avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
                else:
                    weight = operation[1].weight
                    out = group_norm(conv2d(x.relu(), weight, padding=weight.shape[-1] // 2), 1)
                total = total + share[OPERATIONS.index(name)] * out
        values.append(total)
    return sum(values[1:]) / nodes


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_a_cell_is_what_its_definition_says(nodes):
    network = model(nodes=nodes)
    x = torch.rand(6, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    maps = cell_by_hand(network, 0, network.stem(x), nodes)
    maps = cell_by_hand(network, 1, avg_pool2d(maps, 2, ceil_mode=True), nodes)
    torch.testing.assert_close(network(x), network.output(maps.mean(dim=(2, 3))))


def test_number_of_parameters_by_hand():
    edges = 1 + 2 + 3
    convolutions = 2 * edges * (9 + 1) * 4 * 4
    assert sum(p.numel() for p in model().parameters()) == (9 * 2 + 1) * 4 + convolutions + (4 + 1) * 3 + edges * 5


def test_the_architecture_is_read_off_alpha():
    network = model()
    with torch.no_grad():
        network.alpha.zero_()
        network.alpha[:, 0] = 9.0  # "none" has the largest share everywhere, and is never chosen
        for edge, (operation, value) in {
            (0, 1): ("skip", 1.0),
            (0, 2): ("conv_1x1", 1.0),
            (1, 2): ("conv_3x3", 2.0),
            (0, 3): ("avg_pool_3x3", 3.0),
            (1, 3): ("skip", 0.5),
            (2, 3): ("conv_3x3", 2.0),
        }.items():
            network.alpha[network.edges.index(edge), OPERATIONS.index(operation)] = value
    assert network.architecture() == {
        "node 1": ["skip from the input"],
        "node 2": ["conv_1x1 from the input", "conv_3x3 from node 1"],
        "node 3": ["avg_pool_3x3 from the input", "conv_3x3 from node 2"],
    }


def test_alpha_is_all_of_the_architecture_and_travels():
    network = model()
    assert [id(p) for p in network.architecture_parameters()] == [id(network.alpha)]
    assert "alpha" in network.state_dict()
    assert not list(network.buffers())


@pytest.mark.parametrize("settings", [{"nodes": 0}, {"cells": 0}, {"channels": 1}])
def test_refuses_sizes_that_make_no_cell(settings):
    with pytest.raises(ConfigError, match=f"model 'darts_cell': {next(iter(settings))}"):
        DARTSCell((1, 5, 5), 3, **settings)
