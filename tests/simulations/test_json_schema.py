"""The schema of the YAML files takes what is right, and says what is wrong as far as a schema can."""

import re
from typing import Any

import pytest

from flsec.errors import ConfigError
from flsec.simulations.catalogue import indexed
from flsec.simulations.facts import snippet
from flsec.simulations.json_schema import schema_of
from flsec.simulations.names import KINDS_OF_FILES, packaged_experiments
from flsec.simulations.schema import Config
from flsec.simulations.signatures import fields_of
from flsec.simulations.yaml_lines import read
from tests.simulations.test_config import EXACT, EXPERIMENT

jsonschema = pytest.importorskip("jsonschema")  # Ray brings it

VALIDATORS = {kind: jsonschema.Draft7Validator(schema_of(kind)) for kind in KINDS_OF_FILES}
FILES = [(kind, name) for kind, ending in KINDS_OF_FILES.items() for name in packaged_experiments(ending)]
# What a schema cannot say: how settings fit each other and the world, that 4.0 is no int, that a number is finite.
SAID_BY_CHECKS_ALONE = re.compile(
    r"got 4\.0|finite number|cannot be imported|needs? |must be at most num_clients|must be null|must be left out"
    r"|must be at most 4,|leaves 17|cannot draw|ids must lie|is less than one|one of the run's|hands one aggregate"
    r"|takes either|give epochs or steps"
)


def wrong(kind: str, data: Any) -> list[str]:
    return ["/".join(map(str, error.absolute_path)) for error in VALIDATORS[kind].iter_errors(data)]


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_it_is_a_schema(kind: str) -> None:
    jsonschema.Draft7Validator.check_schema(VALIDATORS[kind].schema)


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_every_packaged_file_fits_and_fits_no_other_kind(kind: str, name: str) -> None:
    data, _ = read(packaged_experiments(KINDS_OF_FILES[kind])[name])
    assert wrong(kind, data) == []
    for other in set(KINDS_OF_FILES) - {kind}:
        assert wrong(other, data)


@pytest.mark.parametrize("kind", ["defenses", "attacks", "strategies", "datasets", "partitioners", "models", "tasks"])
def test_every_member_with_its_example_fits_and_with_a_strange_key_does_not(kind: str) -> None:
    base = {"model": {"name": "mlp"}, "training": {"learning_rate": 0.1}}
    for name in indexed(kind):
        part = snippet(kind, name)
        assert wrong("experiments", base | part) == [], name
        value = next(iter(part.values()))
        entry = value[0] if isinstance(value, list) else value["partition"] if kind == "partitioners" else value
        entry["strange"] = 1
        assert wrong("experiments", base | part), name


@pytest.mark.parametrize(("old", "new", "message"), [(old, new, said) for old, new, _, said in EXACT], ids=str)
def test_what_is_wrong_with_a_single_setting_is_seen(old: str, new: str, message: str) -> None:
    assert wrong("experiments", read(EXPERIMENT)[0]) == []
    data, _ = read(EXPERIMENT.replace(old, new))
    assert bool(wrong("experiments", data)) != bool(SAID_BY_CHECKS_ALONE.search(message)), message


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("sweeps", "experiment: quickstart"),
        ("sweeps", "experiment: quickstart\nvary: {}"),
        ("sweeps", "experiment: quickstart\nvary: {seed: []}"),
        ("sweeps", "experiment: quickstart\nvary: {seed: 3}"),
        ("sweeps", "experiment: quickstart\nvary: {a: {b: 3}}"),
        ("sweeps", "experiment: quickstart\nvary: {seed: [1]}\nmarks: {here: there}"),
        ("sweeps", "experiment: {seed: x}\nvary: {seed: [1]}"),
        ("sweeps", "experiment: {defenses: [{name: krum, f: 2}]}\nvary: {seed: [1]}"),
        ("reconstructions", "clients: [0]"),
        ("reconstructions", "experiment: quickstart\nrun: runs/quickstart"),
        ("reconstructions", "experiment: quickstart\nimages: 0"),
        ("reconstructions", "experiment: quickstart\nthrough: [{name: norm_clipping, max_norm: [0.0]}]"),
        ("reconstructions", "experiment: quickstart\nattack: {name: nothing}"),
        ("reconstructions", "experiment: quickstart\nlabels: guessed"),
    ],
)
def test_faulty_sweeps_and_reconstructions_are_seen(kind: str, text: str) -> None:
    assert wrong(kind, read(text)[0])
    assert not wrong(kind, read("experiment: quickstart" + "\nvary: {seed: [1]}" * (kind == "sweeps"))[0])


def test_it_helps_to_complete() -> None:
    properties = VALIDATORS["experiments"].schema["properties"]
    assert set(properties) == set(fields_of(Config))
    defense = properties["defenses"]["anyOf"][0]["items"]
    assert "multi_krum" in defense["properties"]["name"]["anyOf"][0]["enum"]
    krum = next(rule["then"] for rule in defense["allOf"] if rule["if"]["properties"]["name"]["const"] == "krum")
    assert krum["required"] == ["num_byzantine"]
    assert "upper bound" in krum["properties"]["num_byzantine"]["description"]
    assert krum["properties"]["patience"]["default"] == 10


def test_names_of_ones_own_take_any_key() -> None:
    own = {"model": {"name": "my_package.nets:Mine", "width": 3}, "training": {"learning_rate": 0.1}}
    assert wrong("experiments", own) == []


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no schema of 'sweep'"):
        schema_of("sweep")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    from flsec.simulations.lookup import schema

    schema("sweeps")
    assert '"vary"' in capsys.readouterr().out
