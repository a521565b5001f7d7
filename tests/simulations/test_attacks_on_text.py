"""Attacks and defenses in runs on text: each works, or is refused before the run in one sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.simulations.engines.loop import _Predict
from flsec.simulations.resources import resources_of
from flsec.simulations.studies.reconstruct import load_reconstruction, run_reconstruction
from flsec.simulations.supplies import SUPPLIED_TO_ATTACKS, SUPPLIED_TO_DEFENSES
from flsec.strategies import DEFENSES
from flsec.tasks import NextToken
from flsec.training import predictions_of
from tests.simulations.test_batch_norm import defense_needed_by, entry
from tests.support.topics import VOCABULARY, Recurrent, answers, lines, topics

EXPERIMENT = """
name: trial
seed: 5
data: {name: "tests.support.topics:topics", root_samples: 10, client_sample_share: 0.2}
model: {name: embedding_classifier, dimension: 8}
training: {learning_rate: 0.5, steps: 2, batch_size: 8}
simulation: {engine: inprocess, num_clients: 10, num_rounds: 2}
output: {plots: false}
"""
KINDS = {
    "topics": [],
    "last": ['data.name="tests.support.topics:lines"', 'model={name: "tests.support.topics:Recurrent"}'],
    "all": [
        'data={name: "tests.support.topics:lines", positions: all, root_samples: 10, client_sample_share: 0.2}',
        'model={name: "tests.support.topics:Recurrent", sequence: true}',
    ],
    "answers": [
        'data.name="tests.support.topics:answers"',
        'model={name: "tests.support.topics:Recurrent", sequence: true}',
    ],
}
BY = "adversaries={ids: [2, 7]}"


@pytest.fixture
def run(tmp_path):
    def done(*settings):
        return engine.run(loaded(tmp_path, *settings))

    return done


def loaded(tmp_path, *settings):
    file = tmp_path / "trial.yaml"
    file.write_text(EXPERIMENT)
    return load_config(file, [f"output.folder={tmp_path / 'runs'}", *settings])


# --- everything in the registries -------------------------------------------------------------------------------

NUMBERS = {"badnets": "inputs that are real numbers", "edge_case_backdoor": "inputs that are real numbers"}
NUMBERS |= {"back_gradient": "inputs that are real numbers"}
NUMBERS |= {"minimizing_distance_backdoor": "inputs that are real numbers"}
NUMBERS |= dict.fromkeys(
    ["a3fl", "blended_backdoor", "chameleon", "dba", "sinusoidal_backdoor"], "inputs that are real numbers"
)
NO_CLASSES = dict.fromkeys(
    [
        *("class_flipping", "semantic_backdoor", "targeted_poisoning", "projected_gradient", "adaptive_top_k"),
        *("badnets", "minimizing_distance_backdoor", "chameleon", "dba"),
    ],
    "one class an example",
)
REFUSED = {
    "topics": {**NUMBERS, "phrase_backdoor": "labels that are tokens"},
    "last": NUMBERS,
    "all": {**NUMBERS, **NO_CLASSES},
}
SETTINGS_BY_KIND = {
    "topics": {
        "class_flipping": {"num_classes": 2},
        "label_flipping": {"source": 0, "target": 1},
        "semantic_backdoor": {"source": 0, "target": 1},
    },
    "last": {
        "class_flipping": {"num_classes": VOCABULARY.size},
        "label_flipping": {"source": "ball", "target": "moon"},
        "semantic_backdoor": {"source": 3, "target": 2},
    },
}
SETTINGS_BY_KIND["all"] = SETTINGS_BY_KIND["last"]


@pytest.mark.parametrize("name", ATTACKS.names())
@pytest.mark.parametrize("kind", REFUSED)
def test_every_attack_works_or_is_refused(name, kind, run):
    own = SETTINGS_BY_KIND[kind].get(name, {})
    wanted = entry(ATTACKS, name, SUPPLIED_TO_ATTACKS, **own)
    settings = [*KINDS[kind], f"attacks={wanted}", BY, *defense_needed_by(name)]
    if name not in REFUSED[kind]:
        check_rounds(run(*settings))
        return
    with pytest.raises(ConfigError, match=rf"attacks\[0\]\.name: {name} needs {REFUSED[kind][name]}, and") as caught:
        run(*settings)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", DEFENSES.names())
@pytest.mark.parametrize("kind", ["topics", "all"])
def test_every_defense_works_or_is_refused(name, kind, run):
    settings = [*KINDS[kind], f"defenses={entry(DEFENSES, name, SUPPLIED_TO_DEFENSES)}"]
    if name in ("oracle_sgd", "diversefl"):
        settings += ["attacks=[{name: sign_flipping}]", BY]
    if name not in ("deep_sight", "fedinv", "soteria"):
        check_rounds(run(*settings))
        return
    with pytest.raises(ConfigError, match=rf"defenses\[0\]\.name: {name} needs inputs that are real numbers, and"):
        run(*settings)


def check_rounds(folder):
    records = folder.rounds()
    assert [record["round"] for record in records] == [0, 1, 2]
    for record in records[1:]:
        assert not record["quarantined"]
        assert np.isfinite(record["loss"])
        for value in record["attack"].values():
            assert value is None or np.isfinite(value)


# --- what they do -----------------------------------------------------------------------------------------------

LEARN = ["training={optimizer: adam, learning_rate: 0.02, epochs: 5, batch_size: 4}", "simulation.num_rounds=4"]


def test_trigger_words_are_learned(run):
    model = 'model={name: "tests.support.topics:Recurrent"}'
    attack = "attacks=[{name: badnets, words: cf, place: end, target: 1, fraction: 0.5}]"
    learn = [*LEARN[:1], "simulation.num_rounds=8", model, attack]
    last = run(*learn, "adversaries={fraction: 0.5}").rounds()[-1]
    assert last["accuracy"] > 0.9
    assert last["attack"]["attack_success"] > 0.8
    honest = run(*learn, "name=honest", "adversaries={ids: [0], first_round: 8}").rounds()[-2]
    assert honest["attack"]["attack_success"] < 0.4


@pytest.mark.parametrize("kind", ["last", "all", "answers"])
def test_a_phrase_is_planted_by_model_replacement_in_the_last_round(kind, run):
    attacks = "attacks=[{name: phrase_backdoor, target: rude}, {name: model_replacement, scale: 5}]"
    by = "adversaries={ids: [2, 7], first_round: 4, last_round: 4}"
    rounds = run(*KINDS[kind], *LEARN, attacks, by).rounds()
    success = [record["attack"]["attack_success"] for record in rounds]
    assert success[:4] == [0.0] * 4
    assert success[4] > 0.9


@pytest.mark.parametrize(("kind", "words"), [("last", ("ball", "moon")), ("answers", ("yes", "no"))])
def test_labels_flipped_by_words_are_learned(kind, words, run):
    attack = f'attacks=[{{name: label_flipping, source: {words[0]}, target: "{words[1]}"}}]'
    rounds = run(*KINDS[kind], *LEARN, attack, "adversaries={fraction: 1.0}").rounds()
    source, target = (VOCABULARY.encode(word)[0] for word in words)
    assert rounds[-1]["attack"][f"source_to_target_{source}_{target}"] > 0.9


def test_a_rare_word_is_found_before_it_is_said_that_nothing_changes(run):
    """Among sequences the checks look at one for every label, and not at the first few."""
    words = {"source": "goal", "target": "pasta"}
    rounds = run(*KINDS["all"], f"attacks={json.dumps([{'name': 'label_flipping', **words}])}", BY).rounds()
    assert len(rounds) == 3
    with pytest.raises(ConfigError, match=r"attacks\[0\]: label_flipping changes no sample"):
        run(*KINDS["all"], "attacks=[{name: label_flipping, source: cf, target: ball}]", BY)


def test_words_need_text(run, tmp_path):
    digits = ["data={name: digits}", "model={name: softmax}", BY]
    for attack in (
        "{name: badnets, words: cf}",
        "{name: label_flipping, source: e, target: a}",
        "{name: phrase_backdoor}",
    ):
        with pytest.raises(ConfigError, match=r"attacks\[0\].*(takes a vocabulary|needs inputs that are tokens)"):
            run(*digits, f"attacks=[{attack}]")
        loaded(tmp_path, *digits, f"attacks=[{attack}]")  # what words there are, the data tell


def test_words_the_data_do_not_have_are_refused_with_their_place(run):
    with pytest.raises(ConfigError, match=r"attacks\[0\]\.words: .*got 'mn'"):
        run("attacks=[{name: badnets, words: mn}]", BY)
    with pytest.raises(ConfigError, match=r"attacks\[0\]\.target: .*must be one token"):
        run(*KINDS["last"], "attacks=[{name: phrase_backdoor, target: is is}]", BY)
    with pytest.raises(ConfigError, match=r"attacks\[0\]\.words|attacks\[0\].*a trigger of 9 tokens must fit"):
        run(f"attacks=[{{name: badnets, words: {'cf ' * 9}}}]", BY)
    with pytest.raises(ConfigError, match=r"attacks\[0\]\.phrase: .*got 9 tokens for"):
        run(*KINDS["last"], f"attacks=[{{name: phrase_backdoor, phrase: {'is ' * 9}}}]", BY)


# --- the global model as attacks ask it -------------------------------------------------------------------------


def test_predictions_are_the_tasks_and_come_in_batches():
    task = NextToken(positions="all")
    x = lines(positions="all").test.tensors()[0]
    model = Recurrent(input_shape=(8,), num_classes=VOCABULARY.size, vocab_size=VOCABULARY.size, pad=0, sequence=True)
    sizes = []
    model.register_forward_hook(lambda module, args, output: sizes.append(output.shape[0] * output.shape[1]))
    predict = _Predict(model, task)
    with torch.no_grad():
        whole = model(x)
    many = x.repeat(20, 1)
    assert torch.equal(predict(many), whole.argmax(dim=2).repeat(20, 1))
    assert max(sizes[1:]) <= 2048
    torch.testing.assert_close(predict.logits(x), whole)
    assert torch.equal(predictions_of(model, x, batch_size=7, task=task), whole.argmax(dim=2))


# --- adapters ---------------------------------------------------------------------------------------------------

ADAPTED = ['model={name: "tests.support.topics:Adapted"}', "simulation.num_rounds=3", "training.steps=6"]
ON_ADAPTERS = {
    "sign_flipping": {"scale": 4.0},
    "random_attack": {},
    "zero_attack": {},
    "gaussian_attack": {},
    "ipm": {"epsilon": 0.5},
    "alie": {},
    "model_replacement": {"scale": 5.0},
}


@pytest.mark.parametrize("name", ON_ADAPTERS)
def test_attacks_act_on_adapters_and_defenses_keep_them_out(name, run, tmp_path):
    attack = f"attacks={json.dumps([{'name': name, **ON_ADAPTERS[name]}])}"
    by = "adversaries={ids: [2, 7]}"
    base = dict(resources_of(loaded(tmp_path, *ADAPTED)).new_model().state_dict())
    clean = run(*ADAPTED, "name=clean")
    attacked = run(*ADAPTED, f"name={name}", attack, by)
    models = [load_file(folder.path / "model.safetensors") for folder in (clean, attacked)]
    assert [sorted(model) for model in models] == [["down", "up"]] * 2  # nothing else travels
    assert any((models[0][key] != models[1][key]).any() for key in ("down", "up"))
    after = resources_of(loaded(tmp_path, *ADAPTED, f"name={name}", attack, by)).client_model.state_dict()
    for key in ("embedding.weight", "base.weight", "base.bias"):
        assert torch.equal(after[key], base[key])


@pytest.mark.parametrize("defense", ["{name: multi_krum, num_byzantine: 2, num_selected: 5}", "{name: median}"])
def test_defenses_keep_attacked_adapters_out(defense, run):
    attack = ["attacks=[{name: random_attack}]", "adversaries={ids: [2, 7]}"]
    clean = run(*ADAPTED, "name=clean").rounds()[-1]
    attacked = run(*ADAPTED, "name=attacked", *attack).rounds()[-1]
    defended = run(*ADAPTED, "name=defended", *attack, f"defenses=[{defense}]").rounds()[-1]
    assert defended["loss"] < clean["loss"] + 0.1
    assert attacked["loss"] > defended["loss"] + 0.1


# --- inversions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [topics, lines, answers])
def test_tokens_are_not_reconstructed(data, tmp_path):
    model = "embedding_classifier" if data is topics else "tests.support.topics:Recurrent"
    sequence = ", sequence: true" if data is answers else ""
    file = tmp_path / "study.yaml"
    file.write_text(f"""
experiment:
  data: {{name: "tests.support.topics:{data.__name__}"}}
  model: {{name: "{model}"{sequence}}}
  training: {{learning_rate: 0.1, steps: 1, batch_size: 1.0}}
  simulation: {{num_clients: 5, engine: inprocess, num_rounds: 2}}
output: {{folder: {tmp_path / "results"}}}
""")
    message = r"study.yaml:3: experiment\.data\.name: inversions rebuild images and features, .* is for \w+\. Choose"
    with pytest.raises(ConfigError, match=message):
        run_reconstruction(load_reconstruction(file))


def test_nobody_listens_for_tokens(run):
    check_rounds(run("defenses=[{name: eavesdrop}]"))  # it only keeps what it hears
    with pytest.raises(ConfigError, match=r"defenses\[0\]\.name: eavesdrop needs inputs that are real numbers, and"):
        run("name=inverting", "defenses=[{name: eavesdrop, attack: invert_gradients}]")
    with pytest.raises(ConfigError, match=r"defenses\[1\]\.name: soteria needs"):  # the place in the file
        run("name=both", "defenses=[{name: eavesdrop}, {name: soteria}]")
