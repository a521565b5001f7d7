import functools

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAvg
from torch import nn

from flsec.aggregation.deep_sight import deep_sight_ddifs, deep_sight_energies
from flsec.data.datasets.digits import digits
from flsec.errors import ConfigError
from flsec.strategies.cohort import Cohort, Layout
from flsec.strategies.deep_sight import DeepSight
from flsec.training import Training, get_weights, set_weights, train

TRAINING = Training(learning_rate=0.1, batch_size=16, epochs=2)
HONEST, ATTACKERS = 11, 4


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


@functools.cache
def start():
    """A network that has learned a little, and its layout."""
    torch.manual_seed(0)
    model = mlp()
    x, y = digits().train.tensors()
    train(model, x[:600], y[:600], TRAINING, round=1, generator=torch.Generator().manual_seed(0))
    return get_weights(model), Layout(get_weights(model))


def trained(x, y, seed):
    arrays, layout = start()
    model = mlp()
    set_weights(model, arrays)
    train(model, x, y, TRAINING, round=1, generator=torch.Generator().manual_seed(seed))
    return layout.flatten(get_weights(model)) - layout.flatten(arrays)


@functools.cache
def updates():
    """Eleven clients with a few dozen digits each, and four who have pictures with a bright corner called a 7."""
    x, y = digits().train.tensors()
    rows = []
    for client in range(HONEST + ATTACKERS):
        part = slice(client * 80, client * 80 + 80)
        own_x, own_y = x[part].clone(), y[part].clone()
        if client >= HONEST:
            own_x[..., :2, :2], own_y[:] = 1.0, 7
        rows.append(trained(own_x, own_y, client))
    return torch.stack(rows)


def cohort(rows, round=1):
    arrays, layout = start()
    n = len(rows)
    return Cohort(
        updates=rows,
        num_examples=torch.ones(n, dtype=torch.float64),
        client_ids=tuple(range(n)),
        metrics=({},) * n,
        global_parameters=layout.flatten(arrays),
        round=round,
        layout=layout,
        buffers=((),) * n,
        sources=tuple(range(n)),
    )


def deep_sight(**settings):
    return DeepSight(FedAvg(), model_factory=mlp, input_shape=(1, 8, 8), **{"num_samples": 200, **settings})


def test_clients_with_a_backdoor_alone_are_dropped_and_honest_ones_are_kept():
    defense = deep_sight()
    kept = defense.before_aggregation(cohort(updates())).client_ids
    assert max(kept) < HONEST
    assert len(kept) >= 0.9 * HONEST
    assert defense._facts["suspicious"] >= ATTACKERS


def test_where_nobody_attacks_nearly_all_are_kept():
    assert len(deep_sight().before_aggregation(cohort(updates()[:HONEST]))) >= 0.9 * HONEST


def test_energies_are_of_the_output_layers_update_and_ddifs_of_the_rounds_inputs():
    defense, round_ = deep_sight(num_seeds=2, num_samples=1500, seed=3), cohort(updates()[:4], round=5)
    rows = round_.updates
    weights, biases = rows[:, -210:-10].reshape(4, 10, 20), rows[:, -10:]
    torch.testing.assert_close(
        deep_sight_energies(*defense._output_layers(round_)), deep_sight_energies(weights, biases)
    )
    arrays, layout = start()
    first, second = mlp(), mlp()
    set_weights(first, arrays)
    set_weights(second, layout.unflatten(layout.flatten(arrays) + rows[2]))
    x = torch.cat(defense._inputs(5, 1))
    assert x.shape == (1500, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(defense._ddifs(round_)[1, 2], deep_sight_ddifs(second(x), first(x)))
    for other in (defense._inputs(5, 0), defense._inputs(6, 1), deep_sight(seed=4)._inputs(5, 1)):
        assert not torch.equal(x[:100], other[0][:100])


def test_who_is_kept_is_clipped_to_the_median_norm_of_all():
    rows = updates()[:HONEST].clone()
    rows[0] *= 50
    defense = deep_sight()
    kept = defense.before_aggregation(cohort(rows))
    norms = rows.double().norm(dim=1)
    middle = float(norms.median())
    expected = sum(rows[i].double() * min(1, middle / float(norms[i])) for i in kept.client_ids) / len(kept)
    torch.testing.assert_close(defense.on_aggregation(kept).double(), expected, rtol=1e-5, atol=1e-7)


def test_overflowing_models_do_no_harm():
    rows = updates()[:HONEST].clone()
    rows[3] = 3e38
    kept = deep_sight().before_aggregation(cohort(rows)).client_ids
    assert len(kept) >= HONEST - 2


def test_torchs_random_state_is_left_as_it_was():
    before = torch.get_rng_state()
    deep_sight().before_aggregation(cohort(updates()[:4]))
    assert torch.equal(torch.get_rng_state(), before)


class HeadFirst(nn.Module):
    """The output layer is not the last in the state dict."""

    def __init__(self):
        super().__init__()
        self.fc, self.body = nn.Linear(20, 10), nn.Linear(64, 20)

    def forward(self, x):
        return self.fc(self.body(x.flatten(1)))


def test_the_output_layer_is_found_or_named_or_refused():
    assert deep_sight().output_layer == ("3.weight", "3.bias")
    settings = {"input_shape": (1, 8, 8)}
    with pytest.raises(ConfigError, match=r"outputs \(1, 10\), which are not those of body\.weight"):
        DeepSight(FedAvg(), model_factory=HeadFirst, **settings)
    named = DeepSight(FedAvg(), model_factory=HeadFirst, output_layer=("fc.weight", "fc.bias"), **settings)
    assert named.output_layer == ("fc.weight", "fc.bias")
    named.check_samples(torch.zeros(1, 1, 8, 8))
    for layer, reason in {
        ("head", "fc.bias"): "sends no array 'head'",
        ("body.weight", "fc.bias"): r"shapes \(20, 64\) and \(10,\) by these names",
    }.items():
        wrong = DeepSight(FedAvg(), model_factory=HeadFirst, output_layer=layer, **settings)
        with pytest.raises(ConfigError, match=reason):
            wrong.check_samples(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError, match="has no matrix with a bias after it"):
        DeepSight(FedAvg(), model_factory=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)), **settings)
    with pytest.raises(ConfigError, match=r"takes no numbers of shape \(1, 8, 8\)"):
        DeepSight(FedAvg(), model_factory=lambda: nn.Sequential(nn.Embedding(64, 3), nn.Linear(3, 2)), **settings)


def test_weights_with_inputs_first_are_turned():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.zeros(64, 10)), nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return x.flatten(1) @ self.w + self.b

    defense = DeepSight(FedAvg(), model_factory=Turned, input_shape=(1, 8, 8))
    assert defense.output_layer == ("w", "b")
    layout = Layout([np.zeros((64, 10), np.float32), np.zeros(10, np.float32)])
    rows = torch.randn(3, 650, generator=torch.Generator().manual_seed(1))
    weights, _ = defense._output_layers(cohort(rows).replace(layout=layout))
    torch.testing.assert_close(weights, rows[:, :640].reshape(3, 64, 10).transpose(1, 2))
