"""Attacks and defenses that cannot work on the data are refused before the run."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from flsec.client_apps import ATTACKS, Attack
from flsec.data import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.simulations.checks import check_data
from flsec.simulations.config import make_config


class Tokens(ArrayDataset):
    """Token numbers, which stay integers."""

    def tensors(self, indices: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().tensors(indices)
        return x.long(), y


def _samples(kind: type[ArrayDataset], shape: tuple[int, ...], high: int) -> DataSource:
    rng = np.random.default_rng(0)
    parts = [kind(rng.integers(0, high, (60, *shape)), np.arange(60) % 3, divisor=1.0) for _ in range(2)]
    return DataSource("mine", parts[0], parts[1], 3, shape)


def tokens(root: str | None = None) -> DataSource:
    return _samples(Tokens, (12,), 50)


def numbered(root: str | None = None) -> DataSource:
    """Tokens that a data set gives as real numbers."""
    return _samples(ArrayDataset, (12,), 50)


def vectors(root: str | None = None) -> DataSource:
    return _samples(ArrayDataset, (12,), 2)


def images(root: str | None = None) -> DataSource:
    return _samples(ArrayDataset, (1, 8, 8), 2)


class Bag(torch.nn.Module):
    """A bag of words."""

    def __init__(self, input_shape: Any, num_classes: int):
        super().__init__()
        self.layer = torch.nn.EmbeddingBag(50, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.long())


class Strict(Bag):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture(autouse=True)
def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mine")
    for member in (tokens, numbered, vectors, images, Bag, Strict):
        setattr(module, member.__name__, member)
    monkeypatch.setitem(sys.modules, "mine", module)


def check(data: str, model: str, root_samples: int = 10, **sections: Any) -> None:
    model = model if model == "softmax" else f"mine:{model}"
    base = {"training": {"learning_rate": 0.1}, "simulation": {"num_clients": 6}}
    check_data(
        make_config(
            {
                "name": "n",
                "data": {"name": f"mine:{data}", "root_samples": root_samples},
                "model": {"name": model},
                **base,
                **sections,
            }
        )
    )


def attacked(**entry: Any) -> dict[str, Any]:
    return {"attacks": [{"name": "badnets", **entry}], "adversaries": {"fraction": 0.5}}


FEDINV = {"defenses": [{"name": "fedinv", "num_byzantine": 1}]}


@pytest.mark.parametrize(("data", "model"), [("vectors", "softmax"), ("numbered", "Bag"), ("tokens", "Strict")])
def test_badnets_needs_images_or_features(data: str, model: str) -> None:
    with pytest.raises(ConfigError, match=r"attacks\[0\]: a patch needs images.*got samples of shape \(12,\)"):
        check(data, model, **attacked())
    check(data, model, **attacked(features=[0, 3]))
    check("images", "softmax", **attacked())


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (
            "tokens",
            "Strict",
            r"defenses\[0\]: FedInv moves inputs bit by bit, which takes real .* got torch.int64",
        ),
        ("tokens", "Bag", r"defenses\[0\]: FedInv moves inputs bit by bit, which takes real .* got torch.int64"),
        ("numbered", "Bag", r"defenses\[0\]: FedInv moves inputs along the model's gradient, and the model has none"),
    ],
)
def test_fedinv_needs_inputs_that_can_be_moved(data: str, model: str, message: str) -> None:
    check(data, model)
    with pytest.raises(ConfigError, match=message):
        check(data, model, **FEDINV)
    check("vectors", "softmax", **FEDINV)
    check("images", "softmax", **FEDINV)


def test_a_model_is_tried_on_the_kind_of_numbers_that_the_data_have() -> None:
    check("tokens", "Strict")
    with pytest.raises(ConfigError, match=r"model.name: mine:Strict fails on mine's samples"):
        check("numbered", "Strict")


@pytest.mark.parametrize(
    "name", [name for name, attack in ATTACKS.items() if attack.needs_defense is not None], ids=str
)
def test_an_attack_that_only_one_defense_feels_is_refused_without_it(name: str) -> None:
    needed = ATTACKS.get(name).needs_defense
    attack = {"attacks": [{"name": name}], "adversaries": {"count": 1}}
    with pytest.raises(ConfigError, match=rf"attacks\[0\].name: {name} has no effect without the defense {needed}"):
        check("images", "softmax", **attack)
    with pytest.raises(ConfigError, match=f"without the defense {needed}"):
        check("images", "softmax", **attack, defenses=[{"name": "median"}])
    check("images", "softmax", **attack, defenses=[{"name": "median"}, {"name": needed}])


def test_metrics_are_all_that_these_attacks_change() -> None:
    """An attack that changes what a client learns or uploads is felt by every server."""
    for _, attack in ATTACKS.items():
        changes = [getattr(attack, hook) is not getattr(Attack, hook) for hook in ("fit", "poison_update", "poison")]
        if attack.needs_defense is not None:
            assert not any(changes)
        elif attack.poison_metrics is not Attack.poison_metrics:
            assert any(changes), f"{attack.__name__} changes metrics alone: which defense reads them?"
