"""An attack and a defense on every task, and what does not fit one is refused when the file is read."""

from typing import Any

import pytest
import yaml

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.checks import check_data
from flsec.simulations.config import load_config
from flsec.tasks import TASKS
from tests.support import tiny_tasks

TINY = tiny_tasks.__name__
TOKEN_MODEL = f"{TINY}:TokenModel"

# How a task is tried: data, model, and the task where the data are for another. Others are tried by their kinds.
TRIED: dict[str, dict[str, Any]] = {
    "next_token": {"data": {"name": f"{TINY}:next_token"}, "model": {"name": TOKEN_MODEL, "reads": "last"}},
    "causal_lm": {"data": {"name": f"{TINY}:answers"}, "model": {"name": TOKEN_MODEL, "reads": "each"}},
    "gan": {"data": {"name": f"{TINY}:images"}, "task": {"name": "gan"}, "model": {"name": "mlp_gan", "hidden": 16}},
    "nas": {
        "data": {"name": f"{TINY}:images"},
        "task": {"name": "nas"},
        "model": {"name": "darts_cell", "nodes": 2, "cells": 1, "channels": 4},
    },
}
BY_KIND: dict[str, dict[str, Any]] = {
    "numbers": {"data": {"name": f"{TINY}:images"}, "model": {"name": "softmax"}},
    "tokens": {"data": {"name": f"{TINY}:texts"}, "model": {"name": TOKEN_MODEL}},
}
MEASURES = {  # beside accuracy
    "next_token": {"perplexity"},
    "causal_lm": {"perplexity", "answer_accuracy"},
    "gan": {"discriminator_loss", "generator_loss", "pixel_frechet_distance"},
}
ATTACK = {"attacks": [{"name": "random_attack", "scale": 100.0}], "adversaries": {"ids": [2]}}
DEFENSE = {"defenses": [{"name": "median"}]}

each_task = pytest.mark.parametrize("task", TASKS.names())


@pytest.fixture
def configure(tmp_path):
    def start(tried, **sections):
        settings = {
            **TRIED.get(tried, {**BY_KIND[TASKS.get(tried).inputs], "task": {"name": tried}}),
            "training": {"learning_rate": 0.5, "batch_size": 8},
            "simulation": {"engine": "inprocess", "num_clients": 6, "num_rounds": 3},
            "output": {"folder": str(tmp_path / "runs"), "plots": False},
            **sections,
        }
        file = tmp_path / "try.yaml"
        file.write_text(yaml.safe_dump(settings))
        return load_config(file)

    return start


@each_task
def test_an_attack_spoils_it_and_a_defense_saves_it(task, configure) -> None:
    free, attacked, defended = (
        engine.run(configure(task, name=name, **sections)).rounds()
        for name, sections in (("free", {}), ("attacked", ATTACK), ("defended", {**ATTACK, **DEFENSE}))
    )
    for records in (free, attacked, defended):
        assert [record["round"] for record in records] == [0, 1, 2, 3]
        assert all(MEASURES.get(task, set()) <= set(record["measures"]) for record in records)
        assert all(0 <= record["accuracy"] <= 1 for record in records)
    loss, spoilt, saved = (records[-1]["loss"] for records in (free, attacked, defended))
    assert abs(saved - loss) < 0.1 * abs(spoilt - loss)
    if task != "gan":  # whose losses are a balance, and need not fall
        assert loss < free[0]["loss"]
        assert spoilt > free[0]["loss"]


def test_a_model_of_a_task_serves_what_is_derived_from_it(configure) -> None:
    assert check_data(configure("classification", task={"name": f"{TINY}:Derived"})).resources.task.name == "derived"


def refusal(config) -> str:
    with pytest.raises(ConfigError) as caught:
        check_data(config)
    return str(caught.value)


@each_task
def test_a_model_that_does_not_serve_it_is_refused(task, configure) -> None:
    tokens = TASKS.get(task).inputs == "tokens"
    message = refusal(configure(task, model={"name": "mlp_gan" if tokens or task == "nas" else "bi_lstm"}))
    assert "try.yaml" in message
    assert "model.name" in message
    assert f"what is learned is {task}." in message
    own = refusal(configure(task, model={"name": f"{TINY}:OneTooMany"}))
    assert "model.name" in own
    assert "must " in own


@each_task
def test_an_attack_and_a_defense_of_other_inputs_are_refused(task, configure) -> None:
    kind = "Numbers" if TASKS.get(task).inputs == "tokens" else "Tokens"
    has = {"Numbers": "tokens", "Tokens": "real numbers"}[kind]
    attack = {"attacks": [{"name": f"{TINY}:AttackOn{kind}"}], "adversaries": {"ids": [2]}}
    for section, message in (
        ("attacks", refusal(configure(task, **attack))),
        ("defenses", refusal(configure(task, defenses=[{"name": f"{TINY}:DefenseOf{kind}"}]))),
    ):
        assert "try.yaml" in message
        assert f"{section}[0].name" in message
        assert f"{task} has inputs that are {has}" in message
        assert "`flsec describe" in message


@pytest.mark.parametrize(
    ("task", "section", "entry", "reason"),
    [
        ("gan", "attacks", {"name": "label_flipping", "source": 1, "target": 2}, "gan has no labels"),
        ("gan", "attacks", {"name": "class_flipping"}, "gan has no labels"),
        ("gan", "defenses", {"name": "fedinv", "num_byzantine": 1}, "gan has no labels"),
        ("causal_lm", "attacks", {"name": "class_flipping"}, "causal_lm has sequences of labels"),
        (
            "text_classification",
            "defenses",
            {"name": "fedinv", "num_byzantine": 1},
            "text_classification has inputs that are tokens",
        ),
    ],
)
def test_what_comes_with_flsec_is_refused_where_it_makes_no_sense(task, section, entry, reason, configure) -> None:
    adversaries = {"adversaries": {"ids": [2]}} if section == "attacks" else {}
    message = refusal(configure(task, **{section: [entry]}, **adversaries))
    assert reason in message
    assert f"{section}[0].name" in message


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("nas", "texts", "nas cannot be learned from texts, whose task is text_classification: it needs numbers"),
        ("gan", "answers", "gan cannot be learned from answers"),
        ("classification", "next_token", "classification cannot be learned from next_token"),
    ],
)
def test_a_task_is_refused_on_data_of_another(task, data, message, configure) -> None:
    said = refusal(configure(task, task={"name": task}, data={"name": f"{TINY}:{data}"}))
    assert message in said
    assert "task.name" in said


def test_labels_deal_images_out_also_where_nobody_learns_them(configure) -> None:
    split = {"name": f"{TINY}:images", "partition": {"name": "dirichlet", "alpha": 1.0}}
    assert check_data(configure("gan", data=split)).resources.partition.sizes().sum() == tiny_tasks.TRAIN
