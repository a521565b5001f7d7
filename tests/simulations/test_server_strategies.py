import inspect

import pytest
from flwr.serverapp import strategy as flower

from flsec.errors import ConfigError
from flsec.simulations import server_strategies
from flsec.simulations.any_strategy import SAMPLING, build_server_strategy
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.signatures import example_value, field_type, parameters_model

FLOWERS = {
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedprox": flower.FedProx,
    "fedadam": flower.FedAdam,
    "fedyogi": flower.FedYogi,
    "fedadagrad": flower.FedAdagrad,
}
each_strategy = pytest.mark.parametrize("name", STRATEGIES.names())


def needed(name):
    """An example of each parameter that has no default."""
    fields = parameters_model(STRATEGIES.get(name), SAMPLING).model_fields
    return {key: example_value(field_type(info)) for key, info in fields.items() if info.is_required()}


def test_flowers_are_known():
    built = {name: type(STRATEGIES.build(name, needed(name))) for name in FLOWERS}
    assert built == FLOWERS


def test_every_function_of_the_file_is_exported():
    defined = [name for name, value in vars(server_strategies).items() if inspect.isfunction(value) and name[0] != "_"]
    assert sorted(defined) == sorted(server_strategies.__all__)


@each_strategy
def test_each_has_the_defaults_of_the_strategy_that_it_builds(name):
    ours = STRATEGIES.build(name, needed(name), fraction_train=0.5)
    plain = type(ours)(**needed(name), fraction_train=0.5)
    simple = {key: value for key, value in vars(plain).items() if isinstance(value, int | float | str | None)}
    assert {key: vars(ours)[key] for key in simple} == simple


@each_strategy
def test_each_passes_its_own_parameters_on(name):
    parameters = [key for key in inspect.signature(STRATEGIES.get(name)).parameters if key != "sampling"]
    values = {key: 0.25 + index / 100 for index, key in enumerate(parameters)}
    built = STRATEGIES.build(name, values)
    assert {key: getattr(built, key) for key in values} == values


@each_strategy
def test_each_is_sampled_by_the_simulation(name):
    built = build_server_strategy(name, STRATEGIES.get(name), needed(name), clients_per_round=7)
    assert (built.fraction_train, built.fraction_evaluate, built.min_train_nodes) == (1.0, 0.0, 7)


@pytest.mark.parametrize(
    ("name", "params", "rule"),
    [
        ("fedadam", {"eta": 0.0}, "eta must be greater than 0"),
        ("fedadam", {"beta_1": 1.0}, "beta_1 must be less than 1"),
        ("fedprox", {"proximal_mu": -1.0}, "proximal_mu must be greater than or equal to 0"),
        ("fedavgm", {"server_momentum": 1.0}, "server_momentum must be less than 1"),
        ("fedavg", {"fraction_train": 0.5}, "has no parameter 'fraction_train'"),
        ("fedprox", {}, "needs the parameter 'proximal_mu'"),
    ],
)
def test_values_out_of_range_and_sampling_are_refused(name, params, rule):
    with pytest.raises(ConfigError, match=rule):
        STRATEGIES.build(name, params)
