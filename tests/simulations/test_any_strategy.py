"""Flower's other strategies, and anybody's own, from an experiment's file."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config, make_config
from flsec.simulations.resources import Resources

BASE: dict[str, Any] = {
    "name": "own",
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1},
    "simulation": {"engine": "inprocess", "num_clients": 6, "clients_per_round": 5, "num_rounds": 2},
    "output": {"plots": False},
}


class Damped(FedAvg):
    """Passes keywords on."""

    def __init__(self, *, damping: float = 0.5, label: "NotThere | None" = None, **rest: Any) -> None:  # noqa: F821
        super().__init__(**rest)
        self.damping, self.label = damping, label


class Bare(Strategy):
    """Derived from Strategy itself, without a constructor; does what FedAvg does."""

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        return FedAvg(min_train_nodes=1, min_available_nodes=1).configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        return FedAvg().aggregate_train(server_round, replies)

    def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        return []

    def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
        return None

    def summary(self) -> None:
        pass


class Composed(Bare):
    """Takes any keyword, and no base of it says which."""

    def __init__(self, **anything: Any) -> None:
        self.inner = FedAvg(**anything)


class Picky(Bare):
    def __init__(self, quantile: int) -> None:
        if quantile > 4:
            raise ValueError(f"quantile must be at most 4; got {quantile}")
        self.quantile = quantile


class Unfinished(Strategy):
    """Lacks everything."""


def made_here(*, eta: float = 1.0, **sampling: Any) -> Strategy:
    return flower.FedAdam(eta=eta, **sampling)


def no_strategy() -> int:
    return 3


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    module = ModuleType("mine")
    for member in (Damped, Bare, Composed, Picky, Unfinished, made_here, no_strategy):
        setattr(module, member.__name__, member)
    monkeypatch.setitem(sys.modules, "mine", module)
    monkeypatch.chdir(tmp_path)


def strategy_of(**entry: Any) -> Any:
    return Resources(make_config({**BASE, "strategy": entry})).new_strategy()


def error_of(**entry: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        strategy_of(**entry)
    return str(caught.value)


RUNNABLE = ["FedAvg", "FedMedian", "FedTrimmedAvg", "FedAvgM", "FedProx", "FedAdam", "FedYogi", "FedAdagrad"]


@pytest.mark.parametrize("name", RUNNABLE)
def test_flowers_strategies_run_by_their_path(name: str) -> None:
    made = strategy_of(name=f"flwr.serverapp.strategy:{name}")
    assert type(made) is getattr(flower, name)
    assert (made.fraction_train, made.fraction_evaluate) == (1.0, 0.0)
    assert (made.min_train_nodes, made.min_available_nodes) == (5, 5)


def test_flowers_median_runs_from_a_file_bare_and_defended() -> None:
    Path("median.yaml").write_text(
        "strategy: {name: 'flwr.serverapp.strategy:FedMedian'}\nmodel: {name: softmax}\n"
        "training: {learning_rate: 0.1}\nsimulation: {engine: inprocess, num_clients: 5, num_rounds: 2}\n"
        "output: {plots: false}\n"
    )
    for settings in ([], ["defenses=[{name: krum, num_byzantine: 1}]"]):
        rounds = engine.run(load_config("median.yaml", settings)).rounds()
        assert rounds[-1]["kept_previous_model"] is None
        assert rounds[-1]["accuracy"] > rounds[0]["accuracy"] + 0.3


def test_the_same_strategy_by_name_and_by_path_gives_the_same_numbers() -> None:
    by_name, by_path = (
        [record["loss"] for record in engine.run(make_config({**BASE, "strategy": {"name": name}})).rounds()]
        for name in ("fedadam", "flwr.serverapp.strategy:FedAdam")
    )
    assert by_name == by_path


@pytest.mark.parametrize("name", ["Damped", "Bare", "Composed", "made_here"])
def test_a_strategy_of_ones_own_runs(name: str) -> None:
    folder = engine.run(make_config({**BASE, "strategy": {"name": f"mine:{name}"}}))
    assert folder.rounds()[-1]["kept_previous_model"] is None
    assert engine.resume(folder.path, from_round=1).rounds()[-1]["round"] == 2


def test_sampling_reaches_a_constructor_through_its_keywords() -> None:
    damped = strategy_of(name="mine:Damped", damping=0.25)
    assert (damped.damping, damped.min_train_nodes, damped.fraction_evaluate) == (0.25, 5, 0.0)
    assert strategy_of(name="mine:Composed").inner.min_available_nodes == 5
    adam = strategy_of(name="mine:made_here", eta=0.5)
    assert (adam.eta, adam.min_train_nodes) == (0.5, 5)


def test_its_parameters_are_checked_as_far_as_its_signature_goes() -> None:
    place = "<config>:1: strategy"
    trimmed = "flwr.serverapp.strategy:FedTrimmedAvg"
    assert error_of(name=trimmed, beta="x").startswith(f"{place}.beta: must be float; got x.")
    assert error_of(name=trimmed, betta=0.1).startswith(f"{place}.betta: no such key. Did you mean 'beta'?")
    assert error_of(name=trimmed, min_train_nodes=3).startswith(f"{place}.min_train_nodes: no such key.")
    assert error_of(name="mine:Picky").startswith(f"{place}: quantile is missing.")
    assert error_of(name="mine:Picky", quantile=5) == (
        f"{place}: mine:Picky cannot be built: ValueError: quantile must be at most 4; got 5"
    )
    assert strategy_of(name="mine:Damped", label=[1]).label == [1]  # an annotation that nobody can look up


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flwr.server.strategy:FedMedian", "is of Flower's classic API; a simulation runs those of flwr.serverapp"),
        ("flsec.strategies:Krum", "is a defense; list it in defenses."),
        ("flsec.errors:ConfigError", "is no strategy; a simulation runs those of flwr.serverapp.strategy. For example"),
        ("mine:Unfinished", "mine:Unfinished has no aggregate_evaluate, aggregate_train, "),
        (
            "flwr.serverapp.strategy:DifferentialPrivacyServerSideFixedClipping",
            "needs strategy, which a file cannot say",
        ),
        ("mine:no_strategy", "mine:no_strategy must return a strategy of flwr.serverapp.strategy; got int."),
        (
            "nobody.knows:It",
            "cannot be imported: No module named 'nobody'. It is looked for among installed packages, ",
        ),
        ("mine:Nobody", "cannot be imported: module 'mine' has no attribute 'Nobody'"),
        (":It", "cannot be imported: Empty module name"),
        (".mine:It", "cannot be imported: "),
    ],
)
def test_what_is_no_strategy_of_the_message_api_is_refused(name: str, message: str) -> None:
    error = error_of(name=name)
    assert error.startswith("<config>:1: strategy")
    assert message in error
    assert "\n" not in error
