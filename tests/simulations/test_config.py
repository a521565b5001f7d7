import pickle
import random

import pytest
import torch
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import ATTACKS, SignFlipping
from flsec.errors import ConfigError
from flsec.simulations.checks import check_data
from flsec.simulations.config import (
    Config,
    load_config,
    make_config,
    packaged_experiments,
    resolve_experiment,
    split_overrides,
)
from flsec.simulations.problems import SettingsError
from flsec.simulations.resources import Resources
from flsec.simulations.server_strategies import STRATEGIES
from flsec.simulations.yaml_lines import dump, parse_value
from flsec.strategies import DEFENSES, Krum, NormClipping, OracleSGD

EXPERIMENT = """\
# line 1
seed: 7
data:
  name: digits
  partition:
    name: group_bias
    bias: 0.5
model:
  name: mlp
  hidden: [16]
training:
  learning_rate: 1e-1
  epochs: 1
strategy: {name: fedavg}
defenses:
  - name: norm_clipping
  - name: krum
    num_byzantine: 4
attacks:
  - name: sign_flipping
    scale: 4.0
adversaries:
  fraction: 0.2
simulation:
  num_clients: 20
  num_rounds: 5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes the experiment with replacements, as experiment.yaml in the working folder."""
    monkeypatch.chdir(tmp_path)

    def _write(*replacements):
        text = EXPERIMENT
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (tmp_path / "experiment.yaml").write_text(text)
        return "experiment.yaml"

    return _write


def error_of(function, *args):
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def messages_of(function, *args):
    """All that is wrong, where that is more than one thing."""
    with pytest.raises(SettingsError) as caught:
        function(*args)
    assert str(caught.value) == "\n".join(caught.value.messages)
    return caught.value.messages


def unknown_key(messages):
    return next(message for message in messages if "no such key" in message)


# --- what is wrong, where, which rule, what would do ------------------------------------------------------------

EXACT = [
    # out of a limit
    (
        "num_rounds: 5",
        "num_rounds: 5\n  adversaries_per_round: 6",
        27,
        "simulation.adversaries_per_round: must be at most 4, since a round asks 20 clients and there are 4 "
        "adversaries; got 6. For example: adversaries_per_round: 4",
    ),
    (
        "num_rounds: 5",
        "num_rounds: 5\n  clients_per_round: 5\n  sampling: without_replacement",
        26,
        "simulation.num_rounds: must be at most 4, since 20 clients without replacement are enough for so many rounds "
        "of 5; got 5. For example: num_rounds: 4",
    ),
    (
        "num_rounds: 5",
        "num_rounds: 5\n  clients_per_round: 4\n  sampling: without_replacement\n  adversaries_per_round: 1",
        28,
        "simulation.sampling: without_replacement leaves to chance how many adversaries a round meets, so "
        "adversaries_per_round must be null. For example: sampling: uniform",
    ),
    (
        "num_rounds: 5",
        "num_rounds: 5\n  engine: inprocess\n  ray_address: auto",
        28,
        "simulation.ray_address: needs an engine on Ray. For example: engine: pooled",
    ),
    (
        "num_rounds: 5",
        "num_rounds: 5\n  clients_per_round: 19\n  adversaries_per_round: 2",
        28,
        "simulation.adversaries_per_round: leaves 17 places a round for the 16 honest clients; got 2. For example: "
        "adversaries_per_round: 3",
    ),
    (
        "num_byzantine: 4",
        "num_byzantine: -1",
        18,
        "defenses[1].num_byzantine: must be at least 0; got -1. For example: num_byzantine: 2",
    ),
    ("scale: 4.0", "scale: 0", 21, "attacks[0].scale: must be more than 0.0; got 0. For example: scale: 1.0"),
    (
        "fraction: 0.2",
        "fraction: 1.5",
        23,
        "adversaries.fraction: must be at most 1.0; got 1.5. For example: fraction: 0.1",
    ),
    ("bias: 0.5", "bias: 2", 7, "data.partition.bias: must be at most 1.0; got 2. For example: bias: 0.5"),
    (
        "hidden: [16]",
        "hidden: [16, 0]",
        10,
        "model.hidden[1]: must be at least 1; got 0. For example: hidden: [200, 200]",
    ),
    ("epochs: 1", "epochs: 0", 13, "training.epochs: must be at least 1; got 0. For example: epochs: 2"),
    ("epochs: 1", "momentum: 1.0", 13, "training.momentum: must be less than 1.0; got 1.0. For example: momentum: 0.0"),
    ("seed: 7", "seed: -7", 2, "seed: must be at least 0; got -7. For example: seed: 0"),
    (
        "num_rounds: 5",
        "num_rounds: 0",
        26,
        "simulation.num_rounds: must be at least 1; got 0. For example: num_rounds: 20",
    ),
    # a wrong type
    (
        "num_byzantine: 4",
        "num_byzantine: two",
        18,
        "defenses[1].num_byzantine: must be int, at least 0; got two. For example: num_byzantine: 2",
    ),
    (
        "num_byzantine: 4",
        "num_byzantine: 4.0",
        18,
        "defenses[1].num_byzantine: must be int, at least 0; got 4.0. For example: num_byzantine: 2",
    ),
    (
        "num_byzantine: 4",
        "num_byzantine: true",
        18,
        "defenses[1].num_byzantine: must be int, at least 0; got true. For example: num_byzantine: 2",
    ),
    (
        "1e-1",
        "'0.1'",
        12,
        "training.learning_rate: must be float, more than 0; got '0.1'. For example: learning_rate: 0.1",
    ),
    ("1e-1", ".inf", 12, "training.learning_rate: must be a finite number; got .inf. For example: learning_rate: 0.1"),
    (
        "epochs: 1",
        "batch_size: 2.5",
        13,
        "training.batch_size: must be int, at least 1 or float, more than 0, at most 1; "
        "got 2.5. For example: batch_size: 32",
    ),
    (
        "epochs: 1",
        "schedule: linear",
        13,
        "training.schedule: must be one of 'constant', 'inverse_sqrt', 'step', "
        "'triangular'; got linear. For example: schedule: constant",
    ),
    (
        "num_rounds: 5",
        "engine: ray",
        26,
        "simulation.engine: must be one of 'flower', 'pooled', 'inprocess'; got ray. For example: engine: flower",
    ),
    ("seed: 7", "output: {plots: yes}", 2, "output.plots: must be bool; got 'yes'. For example: plots: true"),
    (
        "seed: 7",
        "output: 3",
        2,
        "output: must be a section of 'key: value' lines; got 3. For example: output: {folder: runs}",
    ),
    ("seed: 7", "name: ''", 2, "name: must be a text that is not empty; got ''. For example: name: name"),
    (
        "model:\n  name: mlp\n  hidden: [16]",
        "model: mlp",
        8,
        "model: must be a section of 'key: value' lines; got mlp. For example: model: {name: mlp}",
    ),
    (
        "  - name: norm_clipping\n",
        "  - median\n",
        16,
        "defenses[0]: must be a section of 'key: value' lines; got median. For example: defenses: [{name: median}]",
    ),
    (
        "attacks:\n  - name: sign_flipping\n    scale: 4.0",
        "attacks: zero",
        19,
        "attacks: must be a list of '- name: ...' entries; got zero. For example: attacks: [{name: sign_flipping}]",
    ),
    (
        "adversaries:\n  fraction: 0.2",
        "adversaries: 0.2",
        22,
        "adversaries: must be a section of 'key: value' lines; got 0.2. For example: adversaries: {fraction: 0.2}",
    ),
    ("name: mlp", "name: 5", 9, "model.name: must be str; got 5. For example: name: mlp"),
    # an unknown key or name: the nearest, and all that are legal
    (
        "seed: 7",
        "sead: 7",
        2,
        "sead: no such key. Did you mean 'seed'? Legal here: name, seed, data, task, model, training, "
        "strategy, defenses, attacks, adversaries, simulation, output.",
    ),
    (
        "num_rounds: 5",
        "num_round: 5",
        26,
        "simulation.num_round: no such key. Did you mean 'num_rounds'? Legal here: "
        "engine, num_clients, clients_per_round, adversaries_per_round, sampling, num_rounds, client_resources, "
        "init_args, ray_address, client_timeout, device.",
    ),
    (
        "num_byzantine: 4",
        "num_byzantin: 4",
        18,
        "defenses[1].num_byzantin: no such key. Did you mean 'num_byzantine'? "
        "Legal here: name, num_byzantine, num_neighbors, weighting, max_weight_ratio, max_num_examples, when_short, "
        "unsafe, patience, evaluation, state_arrays, device.",
    ),
    ("bias: 0.5", "alpha: 0.5", 7, "data.partition.alpha: no such key. Legal here: name, bias, by, num_groups."),
    (
        "scale: 4.0",
        "seed: 4",
        21,
        "attacks[0].seed: no such key. Legal here: name, scale, camp, attack_state, state_arrays.",
    ),
    (
        "{name: fedavg}",
        "{name: fedadam, bata_1: 0.9}",
        14,
        "strategy.bata_1: no such key. Did you mean 'beta_1'? Legal here: name, eta, beta_1, beta_2, tau.",
    ),
    (
        "{name: fedavg}",
        "{name: fedavg, min_train_nodes: 3}",
        14,
        "strategy.min_train_nodes: no such key. Legal here: name.",
    ),
    (
        "fraction: 0.2",
        "num_clients: 3",
        23,
        "adversaries.num_clients: no such key. Legal here: ids, count, fraction, "
        "probability, persistence, redraw, candidates, first_round, last_round, every, rounds, last_round_only, camps.",
    ),
    (
        "{name: fedavg}",
        "{name: fedavgg}",
        14,
        f"strategy.name: no strategy 'fedavgg'. Did you mean 'fedavg'? Known: {', '.join(STRATEGIES.names())}.",
    ),
    # something missing
    ("    num_byzantine: 4\n", "", 17, "defenses[1]: num_byzantine is missing. For example: num_byzantine: 2"),
    ("name: mlp\n  hidden", "hidden", 8, "model: name is missing. For example: name: mlp"),
    ("  learning_rate: 1e-1\n", "", 11, "training: learning_rate is missing. For example: learning_rate: 0.1"),
    ("model:\n  name: mlp\n  hidden: [16]\n", "model:\n", 1, "model is missing. For example: model: {name: mlp}"),
    (
        "name: krum",
        "name: nobody.knows:Krum",
        17,
        "defenses[1].name: defense 'nobody.knows:Krum' cannot be imported: No module named 'nobody'. It is looked for "
        "among installed packages, then in the current directory, {here}. Go to the folder that holds nobody, or put "
        "that into PYTHONPATH.",
    ),
    # settings against each other
    (
        "num_rounds: 5",
        "clients_per_round: 30",
        26,
        "simulation.clients_per_round: must be at most num_clients, 20; got 30. For example: clients_per_round: 20",
    ),
    (
        "num_byzantine: 4",
        "num_byzantine: 9",
        18,
        "defenses[1].num_byzantine: krum needs at least 21 clients a round; got 20. For example: num_byzantine: 8",
    ),
    (
        "num_byzantine: 4",
        "num_byzantine: 1000000000000",
        18,
        "defenses[1].num_byzantine: krum needs at least "
        "2000000000003 clients a round; got 20. For example: num_byzantine: 8",
    ),
    (
        "num_rounds: 5",
        "clients_per_round: 2",
        17,
        "defenses[1]: krum needs at least 11 clients a round; got 2. For example, in simulation: clients_per_round: 11",
    ),
    (
        "  num_clients: 20",
        "  num_clients: 2",
        23,
        "adversaries.fraction: fraction=0.2 of 2 clients is less than one adversary. "
        "Use fraction=0.5 or more, or 0 for none.",
    ),
    (
        "norm_clipping",
        "median",
        16,
        "defenses[0]: Median hands one aggregate to Krum, which with its parameters needs "
        "at least 11 clients. Put Median inside instead.",
    ),
    (
        "name: krum\n    num_byzantine: 4",
        "name: trimmed_mean",
        17,
        "defenses[1]: TrimmedMean takes either num_trimmed (such as 2) or beta (such as 0.1).",
    ),
    (
        "fraction: 0.2",
        "count: 30",
        23,
        "adversaries.count: cannot draw more adversaries than there are clients, 20; got "
        "count=30. Use count=20 or fewer.",
    ),
    (
        "fraction: 0.2",
        "ids: [1, 20]",
        23,
        "adversaries.ids: ids must lie in 0 to 19, since num_clients=20; got 20. "
        "Client ids are partition ids and count from 0.",
    ),
    (
        "fraction: 0.2",
        "persistence: 1",
        22,
        "adversaries: Adversaries needs exactly one of ids, count, fraction, "
        "probability; got none. Give one, such as fraction=0.2.",
    ),
    (
        "fraction: 0.2",
        "fraction: 0.2\n  first_round: 6",
        24,
        "adversaries.first_round: first_round must be one of the "
        "run's 5 rounds; got 6. Use first_round=5 or less, or run longer.",
    ),
    (
        "adversaries:\n  fraction: 0.2\n",
        "",
        19,
        "attacks: need adversaries to carry them out. For example: adversaries: {fraction: 0.2}",
    ),
    (
        "attacks:\n  - name: sign_flipping\n    scale: 4.0\n",
        "",
        19,
        "adversaries: need attacks to carry out. For example: attacks: [{name: sign_flipping}]",
    ),
    (
        "epochs: 1",
        "epochs: 1\n  steps: 5",
        13,
        "training.epochs: give epochs or steps, not both; got epochs=1, steps=5. Set one of them to null.",
    ),
    ("scale: 4.0", "camp: red", 21, "attacks[0].camp: must be left out, since adversaries has no camps; got red."),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), EXACT, ids=[f"{new[:30]!r}" for _, new, _, _ in EXACT])
def test_messages_name_file_line_key_rule_and_what_would_do(write, tmp_path, old, new, line, message):
    file = write((old, new))
    before = sorted(tmp_path.rglob("*"))
    assert f"experiment.yaml:{line}: {message}".replace("{here}", str(tmp_path)) in messages_of(load_config, file)
    assert sorted(tmp_path.rglob("*")) == before  # nothing written


def test_the_experiment_of_these_tests_is_sound(write):
    config = load_config(write())
    assert config.training.learning_rate == 0.1
    assert config.name == "experiment"
    check_data(config)


@pytest.mark.parametrize(
    "section",
    ["", "data.", "data.partition.", "model.", "training.", "strategy.", "defenses.1.", "attacks.0.", "adversaries.",
     "simulation.", "simulation.client_resources.", "output."],
)  # fmt: skip
def test_what_is_called_legal_is_the_truth(write, section):
    legal = (
        unknown_key(messages_of(load_config, write(), [f"{section}zzz=1"]))
        .partition("Legal here: ")[2]
        .rstrip(".")
        .split(", ")
    )
    for name in legal:
        message = ""
        try:
            load_config(write(), [f"{section}{name}=1"])
        except ConfigError as error:
            message = str(error)
        assert "no such key" not in message


def test_an_unknown_key_goes_before_the_key_that_it_was_meant_to_be(write):
    file = write(("num_byzantine: 4", "num_byzantin: 4"))
    assert "no such key" in error_of(load_config, file)


def test_camps_must_fit_the_attacks(write):
    camps = ("fraction: 0.2", "fraction: 0.2\n  camps: {red: 0.5, blue: 0.5}")
    assert error_of(load_config, write(camps, ("scale: 4.0", "camp: green"))) == (
        "experiment.yaml:21: attacks[0].camp: must be one of blue, red; got green."
    )
    assert error_of(load_config, write(camps, ("scale: 4.0", "camp: red"))) == (
        "experiment.yaml:24: adversaries.camps: no attack has the camp blue. "
        "For example, in an entry of attacks: camp: blue"
    )
    both = "camp: red\n  - {name: zero_attack, camp: blue}"
    assert len(load_config(write(camps, ("scale: 4.0", both))).attacks) == 2


def test_the_oracle_needs_adversaries(write):
    file = write(
        ("norm_clipping", "oracle_sgd"),
        ("adversaries:\n  fraction: 0.2\n", ""),
        ("attacks:\n  - name: sign_flipping\n    scale: 4.0\n", ""),
    )
    assert error_of(load_config, file) == (
        "experiment.yaml:16: defenses[0]: oracle_sgd needs to know the adversaries, and there are none. "
        "For example: adversaries: {fraction: 0.2}"
    )


@pytest.mark.parametrize("content", ["", "- 1", "a: [", "seed: 1\nseed: 2", "\tx: 1"])
def test_a_file_that_is_no_experiment(tmp_path, content):
    file = tmp_path / "x.yaml"
    file.write_text(content)
    assert error_of(load_config, file).startswith(f"{file}:")
    assert "no such file" in error_of(load_config, tmp_path / "y.yaml")


def test_every_suggested_line_would_do(write):
    """What follows 'For example: ' in the exact messages, put in the place of what was refused, is accepted."""
    tried = 0
    for old, new, _, message in EXACT:
        example = message.partition("For example: ")[2]
        if not example or "\n" in new or ": " not in new or "section" in message:
            continue
        key = new.partition(":")[0].strip(" -")
        if example.partition(":")[0] != key:
            continue
        load_config(write((old, example)))
        tried += 1
    assert tried >= 12


# --- overrides -------------------------------------------------------------------------------------------------


def test_overrides_change_settings(write):
    config = load_config(
        write(),
        [
            "seed=11",
            "training.learning_rate=1e-3",
            "defenses.1.num_byzantine=3",
            "model={name: softmax}",
            "strategy.name=fedadam",
            "simulation.client_resources.num_gpus=0.25",
            "defenses.2.name=median",
            "output.folder=elsewhere",
        ],
    )
    assert config.seed == 11
    assert config.training.learning_rate == 0.001
    assert [entry.name for entry in config.defenses] == ["norm_clipping", "krum", "median"]
    assert config.defenses[1].params["num_byzantine"] == 3
    assert config.model.name == "softmax"
    assert config.strategy.params["eta"] == 0.1
    assert config.simulation.client_resources.num_gpus == 0.25
    assert config.output.folder == "elsewhere"


def test_the_last_override_wins_and_null_means_the_default(write):
    assert load_config(write(), ["seed=1", "seed=2"]).seed == 2
    assert load_config(write(), ["seed=null"]).seed == 0
    assert load_config(write(), ["defenses=[]", "attacks=[]", "adversaries=null"]).defenses == ()


def test_an_override_can_start_a_section_and_a_list(write):
    file = write(("defenses:\n  - name: norm_clipping\n  - name: krum\n    num_byzantine: 4\n", "defenses:\n"))
    assert load_config(file, ["defenses.0.name=median"]).defenses[0].name == "median"
    assert load_config(file, ["output.plots=false"]).output.plots is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "--set seed=-1: seed: must be at least 0; got -1. For example: seed: 0"),
        (
            "defenses.1.num_byzantine=x",
            "--set defenses.1.num_byzantine=x: defenses[1].num_byzantine: must be int, at least 0; got x. "
            "For example: num_byzantine: 2",
        ),
        (
            "defenses.1={name: krum, num_byzantine: -1}",
            "--set defenses.1={name: krum, num_byzantine: -1}: defenses[1].num_byzantine: must be at least 0; got -1. "
            "For example: num_byzantine: 2",
        ),
        (
            "simulation.rounds=1",
            "--set simulation.rounds=1: simulation.rounds: no such key. Did you mean 'num_rounds'?",
        ),
        ("adversaries.count=3", "--set adversaries.count=3: adversaries.count: Adversaries needs exactly one of"),
        ("simulation.num_clients=8", "experiment.yaml:18: defenses[1].num_byzantine: krum needs at least 11 clients"),
        ("seed", "--set seed: must be key=value. For example: --set simulation.num_rounds=5"),
        ("=3", "--set =3: must be key=value."),
        ("a..b=3", "--set a..b=3: must be key=value."),
        ("seed.x=1", "--set seed.x=1: seed is 7, so it has no 'x'. Name a key of a section, or an entry of a list"),
        ("defenses[1].num_byzantine=x", "--set defenses[1].num_byzantine=x: defenses[1].num_byzantine: must be int"),
        ("defenses[1].zzz=1", "--set defenses[1].zzz=1: defenses[1].zzz: no such key."),
        ("defenses[5].name=krum", "--set defenses[5].name=krum: defenses has 2 entries, so no number 5."),
        ("defenses[one]=1", "--set defenses[one]=1: must be key=value."),
        ("[0].name=krum", "--set [0].name=krum: must be key=value."),
        ("defenses[0]name=krum", "--set defenses[0]name=krum: must be key=value."),
        ("defenses[0].name.x=krum", "--set defenses[0].name.x=krum: defenses[0].name is norm_clipping, so it has"),
        ("defenses.krum=1", "--set defenses.krum=1: defenses is a list, so it has no 'krum'."),
        ("defenses.5.name=krum", "--set defenses.5.name=krum: defenses has 2 entries, so no number 5."),
        ("model.0=1", "--set model.0=1: model is a section, so it has no 0."),
        ("seed=[1", "--set seed=[1:1: malformed YAML"),
    ],
)
def test_an_override_is_named_in_place_of_a_line(write, override, message):
    assert error_of(load_config, write(), [override]).startswith(message)


def flow_values():
    """Anything that can stand behind a setting's equals sign in one line."""
    texts = st.text(alphabet="abc ,:=[]{}'\"\\#-\n", max_size=8)
    leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | texts
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["seed", "defenses.0.k", "output"]), flow_values()), max_size=4))
def test_settings_in_one_line_are_cut_where_they_were_joined(given_settings):
    written = [
        f"{key}={dump([value], flow=True)[1:-1]}" for key, value in given_settings
    ]  # a text with commas is quoted
    for separator in (",", ", ", " ,"):
        parts = split_overrides(separator.join(written))
        assert parts == written
    assert [parse_value(part.partition("=")[2]) for part in parts] == [value for _, value in given_settings]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" , ,", []),
        ("seed=3,", ["seed=3"]),
        ("defenses=[{name: krum, num_byzantine: 2}],seed=3", ["defenses=[{name: krum, num_byzantine: 2}]", "seed=3"]),
        ("name=it's,seed=3", ["name=it's", "seed=3"]),  # text that begins with neither quote nor bracket
        ("name=a[1,seed=3", ["name=a[1", "seed=3"]),
        ("name=a]b,seed=3", ["name=a]b", "seed=3"]),
        ("name='it''s, so',seed=3", ["name='it''s, so'", "seed=3"]),
        ('name="a\\",b",seed=3', ['name="a\\",b"', "seed=3"]),
        ("model={name: mlp, note: it's},seed=3", ["model={name: mlp, note: it's}", "seed=3"]),
        ("a=b='c,d=e", ["a=b='c", "d=e"]),
    ],
)
def test_commas_inside_brackets_and_quotes_belong_to_the_value(text, parts):
    assert split_overrides(text) == parts


# --- the data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (
            ("name: digits", "name: mnist\n  root: nowhere"),
            "experiment.yaml:4: data.name: data set 'mnist' not found. Looked in: ",
        ),
        (
            ("name: group_bias\n    bias: 0.5", "name: natural"),
            "experiment.yaml:5: data.partition: partitioner 'natural' needs the samples' natural ids",
        ),
        (
            ("name: group_bias\n    bias: 0.5", "name: one_class\n    samples_per_client: 500"),
            "experiment.yaml:7: data.partition.samples_per_client: partitioner 'one_class' needs a class with",
        ),
        (("name: mlp\n  hidden: [16]", "name: siren_cnn"), "experiment.yaml:8: model: model 'siren_cnn' takes images"),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: label_flipping\n    source: 3\n    target: 12"),
            "experiment.yaml:22: attacks[0].target: label_flipping makes the label 12; digits has the classes 0 to 9. "
            "For example: target: 9",
        ),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: label_flipping\n    source: 10\n    target: 2"),
            "experiment.yaml:21: attacks[0].source: label_flipping changes no sample; digits has the classes 0 to 9. "
            "For example: source: 9",
        ),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: label_flipping\n    pairs: [[1, 2], [3, 10]]"),
            "experiment.yaml:21: attacks[0].pairs: label_flipping makes the label 10; digits has the classes 0 to 9.",
        ),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: badnets\n    target: 10"),
            "experiment.yaml:21: attacks[0].target: badnets makes the label 10; digits has the classes 0 to 9. "
            "For example: target: 9",
        ),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: class_flipping\n    num_classes: 6"),
            "experiment.yaml:21: attacks[0].num_classes: must be 10, since digits has the classes 0 to 9; got 6. "
            "For example: num_classes: 10",
        ),
        (
            ("name: sign_flipping\n    scale: 4.0", "name: badnets\n    size: 9"),
            "experiment.yaml:21: attacks[0].size: ",
        ),
        (
            ("  num_clients: 20", "  num_clients: 1000"),
            "experiment.yaml:5: data.partition: every client needs a sample; ",
        ),
    ],
)
def test_settings_that_do_not_fit_the_data(write, replacement, message):
    config = load_config(write(replacement))  # nothing wrong as far as one can tell without the data
    assert error_of(check_data, config).startswith(message)


def test_a_number_of_clients_that_is_suggested_would_do(write):
    file = write(("  num_clients: 20", "  num_clients: 1000"))
    advice = error_of(check_data, load_config(file)).rpartition(": ")[2]
    check_data(load_config(file, [f"simulation.num_clients={advice}"]))


def test_a_model_of_ones_own_is_tried_on_the_data(write, monkeypatch):
    class Wrong(torch.nn.Module):
        def __init__(self, input_shape, num_classes, *, outputs: int = 3, fails: bool = False):
            super().__init__()
            self.layer, self.fails = torch.nn.Linear(64, outputs), fails

        def forward(self, x):
            return self.layer(x if self.fails else x.flatten(1))

    monkeypatch.setattr("flsec.models.Wrong", Wrong, raising=False)
    file = write(("name: mlp\n  hidden: [16]", "name: flsec.models:Wrong"))
    assert error_of(check_data, load_config(file)) == (
        "experiment.yaml:9: model.name: flsec.models:Wrong must return one number a class, (2, 10) for two samples; "
        "got (2, 3)."
    )
    assert "fails on digits's samples, (1, 8, 8): " in error_of(check_data, load_config(file, ["model.fails=true"]))


def test_check_data_returns_the_data(write):
    assert check_data(load_config(write())).resources.dataset.name == "digits"


# --- a config as a value ---------------------------------------------------------------------------------------


def test_to_dict_loads_to_an_equal_config(write, tmp_path):
    config = load_config(write(), ["training.batch_size=1.0", "strategy={name: fedadam}", "model.hidden=[8, 8]"])
    plain = config.to_dict()
    assert make_config(plain) == config
    (tmp_path / "resolved.yaml").write_text(dump(plain))
    assert load_config(tmp_path / "resolved.yaml") == config
    assert Config.model_validate(plain) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert config != load_config(write(), ["seed=8"])


def test_resolved_settings_hold_the_defaults(write):
    plain = load_config(write()).to_dict()
    assert plain["simulation"]["client_timeout"] == 600.0
    assert plain["simulation"]["client_resources"] == {"num_cpus": 1.0, "num_gpus": 0.0}
    assert plain["defenses"][1] == {
        "name": "krum",
        "num_byzantine": 4,
        "num_neighbors": None,
        "weighting": "uniform",
        "max_weight_ratio": None,
        "max_num_examples": 10**9,
        "when_short": "keep_previous",
        "unsafe": False,
        "patience": 10,
        "evaluation": "mean",
        "state_arrays": None,
        "device": "cpu",
    }
    assert plain["training"]["optimizer"] == "sgd"
    assert plain["adversaries"]["redraw"] == "never"


def test_a_batch_of_one_example_and_a_batch_of_all_stay_apart(write):
    for written in ("1", "1.0"):
        config = load_config(write(), [f"training.batch_size={written}"])
        again = make_config(config.to_dict())
        assert repr(again.training.batch_size) == written


def test_the_smallest_experiment(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("model: {name: softmax}\ntraining: {learning_rate: 0.1}\n")
    config = load_config(file)
    assert config.name == "small"
    assert (config.data.name, config.data.partition.name, config.strategy.name) == ("digits", "iid", "fedavg")
    assert (config.defenses, config.attacks, config.adversaries) == ((), (), None)
    assert (config.simulation.engine, config.simulation.cohort_size) == ("flower", 20)
    check_data(config)


def test_a_config_cannot_be_changed(write):
    config = load_config(write())
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    params = config.defenses[1].params
    params["num_byzantine"] = 0
    assert config.defenses[1].params["num_byzantine"] == 4


# --- the objects -----------------------------------------------------------------------------------------------


def test_the_strategy_is_nested_as_listed(write):
    settings = ["strategy={name: fedadam, eta: 0.5}", "simulation.clients_per_round=15"]
    strategy = Resources(load_config(write(), settings)).new_strategy()
    assert [type(wrapper) for wrapper in strategy.chain()] == [NormClipping, Krum]
    assert strategy.chain()[1].num_byzantine == 4
    base = strategy.base
    assert isinstance(base, flower.FedAdam)
    assert (base.eta, base.fraction_train, base.fraction_evaluate) == (0.5, 1.0, 0.0)
    assert (base.min_train_nodes, base.min_available_nodes) == (15, 15)


def test_without_defenses_the_strategy_is_flowers_own(write):
    assert type(Resources(load_config(write(), ["defenses=[]"])).new_strategy()) is flower.FedAvg


def test_building_a_strategy_logs_nothing(write, caplog):
    Resources(load_config(write())).new_strategy()
    assert not caplog.records


def test_adversaries_are_told_what_the_run_knows(write):
    config = load_config(write(), ["adversaries={last_round_only: true, count: 3}"])
    adversaries = Resources(config).adversaries
    assert adversaries == Adversaries(num_clients=20, num_rounds=5, seed=7, count=3, last_round_only=True)
    assert [len(adversaries.active(round)) for round in (4, 5)] == [0, 3]
    none = load_config(write(), ["attacks=[]", "adversaries=null"])
    assert Resources(none).adversaries is None


def test_attacks_and_the_oracle_agree_on_who_attacks(write):
    config = load_config(write(("norm_clipping", "oracle_sgd")))
    resources = Resources(config)
    (attack,) = resources.attacks
    oracle = resources.new_strategy()
    assert isinstance(attack, SignFlipping)
    assert isinstance(oracle, OracleSGD)
    assert attack.scale == 4.0
    assert attack.seed == 7
    assert attack.adversaries == oracle.adversaries == resources.adversaries


def test_the_partition_depends_on_the_seed_alone(write):
    first, again = (Resources(load_config(write())).partition for _ in range(2))
    other = Resources(load_config(write(), ["seed=8"])).partition
    assert len(first) == 20
    assert first.indices.tolist() == again.indices.tolist()
    assert first.indices.tolist() != other.indices.tolist()


# --- packaged experiments --------------------------------------------------------------------------------------


def test_packaged_experiments_load_and_are_found_by_name():
    packaged = packaged_experiments()
    assert "quickstart" in packaged
    for name, path in packaged.items():
        assert resolve_experiment(name) == path
        assert load_config(path).name
    check_data(load_config(packaged["quickstart"]))


def test_other_names_are_paths_or_errors(tmp_path):
    assert resolve_experiment("folder/mine.yaml").name == "mine.yaml"
    plain = tmp_path / "experiment"
    plain.write_text(EXPERIMENT)
    assert load_config(resolve_experiment(plain)).seed == 7
    message = error_of(resolve_experiment, "quikstart")
    assert message.startswith("quikstart: no packaged experiment has this name. Did you mean 'quickstart'? Packaged: ")
    assert message.endswith("Or give the path of a file that ends in .yaml.")


# --- over everything registered --------------------------------------------------------------------------------


@pytest.mark.parametrize("registry", [DEFENSES, ATTACKS])
def test_a_misspelt_parameter_of_anything_names_the_right_one(write, registry):
    kind = "defenses" if registry is DEFENSES else "attacks"
    for name in registry.names():
        messages = messages_of(load_config, write(), [f"{kind}=[{{name: {name}, zzz: 1}}]"])
        legal = unknown_key(messages).partition("Legal here: ")[2]
        word = random.Random(name).choice(legal.rstrip(".").split(", "))
        message = unknown_key(messages_of(load_config, write(), [f"{kind}=[{{name: {name}, {word}x: 1}}]"]))
        assert f"{kind}[0].{word}x: no such key. Did you mean '{word}'?" in message


@pytest.mark.parametrize(
    "override", ["zzz=1", "defenses[1].zzz=1", "data.partition.zzz=1", "attacks[0].scale=x", "training.zzz=1"]
)
def test_set_takes_the_path_that_a_message_prints(write, override):
    """What is wrong is said under its path, which is what ``--set`` was given."""
    path, _, _ = override.partition("=")
    assert any(
        message.startswith(f"--set {override}: {path}: ") for message in messages_of(load_config, write(), [override])
    )
