import inspect

import numpy as np
import pytest
from flwr.serverapp import strategy as flower

from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.simulations import server_strategies
from flsec.simulations.any_strategy import build_server_strategy
from flsec.simulations.schema import StrategyEntry
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.signatures import example_value, field_type, parameters_model
from flsec.strategies import FedNova, Scaffold, ServerWeightDecay
from flsec.training import Training
from tests.support.federation import CLIENTS, SERVERS, SIZES, START, Federation, flat, gradient
from tests.support.federation import flower as federated

both_apis = pytest.mark.parametrize("api", SERVERS)
FLOWERS = {
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedprox": flower.FedProx,
    "fedadam": flower.FedAdam,
    "fedyogi": flower.FedYogi,
    "fedadagrad": flower.FedAdagrad,
}
OURS = {"fednova": FedNova, "scaffold": Scaffold, "server_weight_decay": ServerWeightDecay}
SUPPLIED = {"training": Training(learning_rate=0.1, steps=1, batch_size=1.0), "num_rounds": 9, "num_clients": 20}
each_strategy = pytest.mark.parametrize("name", STRATEGIES.names())
each_function = pytest.mark.parametrize("name", [name for name in STRATEGIES.names() if name not in OURS])


def written(name):
    """The fields of the parameters that a file may set."""
    return parameters_model(STRATEGIES.get(name), StrategyEntry.supplied).model_fields


def needed(name):
    """An example of each parameter that has no default."""
    return {key: example_value(field_type(info)) for key, info in written(name).items() if info.is_required()}


def supplied(name):
    """What a simulation adds."""
    return {key: value for key, value in SUPPLIED.items() if key in parameters_of(STRATEGIES.get(name))}


def built(name, clients_per_round=7, **params):
    given = {**needed(name), **params, **supplied(name)}
    return build_server_strategy(name, STRATEGIES.get(name), given, clients_per_round)


def test_flowers_and_ours_are_known():
    assert {name: type(built(name)) for name in STRATEGIES.names()} == {**FLOWERS, **OURS, "fedsgd": flower.FedAvgM}


def test_every_function_of_the_file_is_exported():
    defined = [name for name, value in vars(server_strategies).items() if inspect.isfunction(value) and name[0] != "_"]
    assert sorted([*defined, *(cls.__name__ for cls in OURS.values())]) == sorted(server_strategies.__all__)


@each_function
def test_each_has_the_defaults_of_the_strategy_that_it_builds(name):
    ours = STRATEGIES.build(name, needed(name), **supplied(name), fraction_train=0.5)
    momentum = {"server_momentum": 0.0} if name == "fedsgd" else {}
    plain = type(ours)(**needed(name), **momentum, fraction_train=0.5)
    simple = {key: value for key, value in vars(plain).items() if isinstance(value, int | float | str | None)}
    assert {key: vars(ours)[key] for key in simple} == simple


@each_function
def test_each_passes_its_own_parameters_on(name):
    values = {key: 0.25 + index / 100 for index, key in enumerate(written(name))}
    made = STRATEGIES.build(name, values, **supplied(name))
    assert {key: getattr(made, key) for key in values} == values


@each_strategy
def test_each_is_sampled_by_the_simulation(name):
    made = built(name, clients_per_round=7)  # an optimizer of ours passes on what the strategy inside says
    assert (made.fraction_train, made.fraction_evaluate, made.min_train_nodes) == (1.0, 0.0, 7)


@pytest.mark.parametrize(
    "changed",
    [{"steps": 2}, {"batch_size": 1}, {"batch_size": 0.5}, {"optimizer": "adam"}, {"momentum": 0.9}, {"epochs": 2}],
)
def test_fedsgd_refuses_training_that_is_no_single_gradient(changed):
    settings = {"learning_rate": 0.1, "batch_size": 1.0, **({"steps": 1} if "epochs" not in changed else {}), **changed}
    with pytest.raises(ConfigError, match=r"set steps: 1, batch_size: 1\.0"):
        STRATEGIES.build("fedsgd", {}, training=Training(**settings))
    STRATEGIES.build("fedsgd", {}, training=Training(learning_rate=0.1, epochs=1, batch_size=1.0))


@both_apis
def test_fedsgd_is_gradient_descent_on_all_data(api):
    """Gradients weighted by data, times both learning rates; in the classic API Flower's FedAvgM does the same."""
    if api == "Message":
        strategy = STRATEGIES.build("fedsgd", {"server_learning_rate": 0.4}, training=SUPPLIED["training"])
        strategy.min_train_nodes = strategy.min_available_nodes = len(CLIENTS)
    else:
        strategy = federated(api, "FedAvgM")
        strategy.server_learning_rate, strategy.server_momentum = 0.4, 0.0
    x, shares = flat(START.values()), np.array(SIZES) / sum(SIZES)
    federation = Federation(api, strategy, steps=1)
    for number in (1, 2, 3):
        x = x - 0.5 * 0.4 * sum(p * gradient(x, i) for p, i in zip(shares, CLIENTS, strict=True))
        np.testing.assert_allclose(federation.play([number]).model, x, rtol=1e-5, atol=1e-6)


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
