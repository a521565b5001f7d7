import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from flsec.client_apps import forms_of
from flsec.errors import ConfigError
from flsec.simulations.attack_forms import page
from flsec.simulations.config import make_config, packaged_experiments
from flsec.simulations.describe import describe, list_kinds
from flsec.simulations.facts import KINDS, snippet
from flsec.simulations.signatures import fields_of

EVERYTHING = [(kind, name) for kind, entry in KINDS.items() for name in entry.registry.names()]
BASE = {
    "name": "test",
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1},
    "attacks": [{"name": "zero_attack"}],
    "adversaries": {"count": 2},
}


def text_of(renderable, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_there_is_something_of_every_kind():
    assert {kind for kind, _ in EVERYTHING} == set(KINDS)


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_everything_has_a_snippet_that_loads(kind, name):
    part = snippet(kind, name)
    config = make_config({**BASE, **part})
    plain = config.to_dict()
    entry = next(iter(part.values()))
    entry = entry[0] if isinstance(entry, list) else entry.get("partition", entry)
    places = [plain["data"], plain["data"]["partition"], plain["model"], plain["strategy"], plain["task"] or {}]
    assert any(entry.items() <= place.items() for place in [*places, *plain["defenses"], *plain["attacks"]])


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_everything_can_be_described(kind, name):
    entry = KINDS[kind]
    member = entry.registry.get(name)
    text = text_of(describe(name))
    assert text.startswith(f"{name}  ({kind})")
    summary = member.__doc__.strip().splitlines()[0]
    assert summary.replace("``", "")[:60] in text
    assert "Source: " in text
    example = text.partition("In YAML:")[2]
    assert yaml.safe_load(example) == snippet(kind, name)
    rows = text.partition("meaning")[2].partition("Source: ")[0]
    params = make_config({**BASE, **snippet(kind, name)}).to_dict()
    place = {"strategies": "strategy", "models": "model", "datasets": "data", "tasks": "task"}.get(kind, kind)
    params = params["data"]["partition"] if kind == "partitioners" else params[place]
    for key in params[0] if isinstance(params, list) else params:
        if key not in fields_of(entry):  # settings of all data sets and models are described with the section
            row = next(line for line in rows.splitlines() if line.startswith(f"{key} "))
            assert len(row.split("  ")) > 3, f"{name} does not say what {key} is"


def test_what_the_simulation_supplies_is_not_shown():
    for name, hidden in [
        ("krum", "strategy"),
        ("oracle_sgd", "adversaries"),
        ("badnets", "seed"),
        ("mlp", "input_shape"),
    ]:
        assert not [line for line in text_of(describe(name)).splitlines() if line.startswith(f"{hidden} ")]


def test_a_description_in_full():
    lines = [" ".join(line.split()) for line in text_of(describe("Multi_Krum")).splitlines()]
    assert lines[0] == "multi_krum (defenses)"
    assert any(
        line.startswith("num_byzantine int, at least 0 required f, an upper bound on the hostile") for line in lines
    )
    inherited = [line for line in lines if line.startswith("weighting ")]
    assert inherited
    assert inherited[0].startswith("weighting one of 'uniform', 'examples' uniform \"uniform\" counts every")
    assert any("O(n^2 d)" in line for line in lines)  # the cost
    assert any("2 f + 3" in line for line in lines)  # the precondition
    assert [line for line in lines if line][-3:] == ["defenses:", "- name: multi_krum", "num_byzantine: 2"]


@pytest.mark.parametrize("name", ["model", "training", "adversaries", "simulation", "output"])
def test_sections_are_described_like_anything_else(name):
    text = text_of(describe(name))
    assert text.startswith(f"{name}  (sections)")
    assert yaml.safe_load(text.partition("In YAML:")[2]).keys() == {name}
    make_config({**BASE, **yaml.safe_load(text.partition("In YAML:")[2])})


def test_an_experiment_is_shown_as_it_is():
    path = packaged_experiments()["quickstart"]
    assert path.read_text().strip() in text_of(describe("quickstart"))


def test_lists_have_one_line_each():
    lines = text_of(list_kinds()).splitlines()
    for _, name in EVERYTHING:
        assert [line for line in lines if line.split("  ")[0].strip() == name and len(line.split()) > 3], name
    defenses = text_of(list_kinds("defenses")).strip().splitlines()
    assert defenses[0].strip() == "defenses"
    assert len(defenses) == 1 + len(KINDS["defenses"].registry.names())


def test_narrow_terminals_lose_nothing():
    words = " ".join(text_of(describe("krum"), width=70).split())
    assert "an upper bound on the hostile" in words


@pytest.mark.parametrize(
    ("call", "name", "message"),
    [
        (
            describe,
            "multy_krum",
            "nothing is called 'multy_krum'. Did you mean 'multi_krum'? `flsec list` shows all names.",
        ),
        (describe, "qqqqqq", "nothing is called 'qqqqqq'. `flsec list` shows all names."),
        (
            list_kinds,
            "defense",
            "no kind 'defense'. Did you mean 'defenses'? Known: defenses, attacks, strategies, datasets, partitioners, "
            "models, tasks, sections, experiments, sweeps, reconstructions.",
        ),
    ],
)
def test_unknown_names_get_the_nearest(call, name, message):
    with pytest.raises(ConfigError) as caught:
        call(name)
    assert str(caught.value) == message


def test_a_defense_says_what_it_needs_on_clients_and_server():
    assert "Needs on the clients: nothing.\nNeeds on the server: nothing." in text_of(describe("krum"))
    assert "flsec.client_apps.noisy_client around each" in text_of(describe("noisy_median"))
    needs = text_of(describe("siren"))
    assert "flsec.client_apps.siren_client around each" in needs
    assert "model_factory, root_data" in needs or "root_data, model_factory" in needs


@pytest.mark.parametrize("name", KINDS["attacks"].registry.names())
def test_an_attack_says_in_which_forms_it_goes_on_clients(name):
    attack = KINDS["attacks"].registry.get(name)
    text = text_of(describe(name), width=400).partition("Goes on clients\n")[2]
    said = {
        "decorator": f"- a decorator: @{attack.__name__}(...) above",
        "mod": f"- a mod of a NumPyClient's app: numpy_client_app(client_fn, mods=[{attack.__name__}(...).mod])",
        "Message API": f"- a mod of any app: @app.train(mods=[{attack.__name__}(...).mod])",
        "simulation only": f"Adversary(strategy, attacks=[{attack.__name__}(...)])",
    }
    assert {form for form, words in said.items() if words in text} == set(forms_of(attack))


def test_settings_that_change_the_forms_are_said():
    assert "with alpha: 0.5, as decorator and as mod." in text_of(describe("model_replacement"))
    assert "with knowledge: all, in simulations only." in text_of(describe("adaptive_top_k"))
    assert "- with" not in text_of(describe("sign_flipping"))
    assert "passes its data through flsec.client_apps.poisoned" in text_of(describe("label_flipping"), width=400)
    assert "flsec.client_apps.poisoned" not in text_of(describe("sign_flipping"))


def test_the_page_of_the_documentation_is_what_the_command_prints():
    written = (Path(__file__).parents[2] / "docs" / "attacks.md").read_text()
    assert written == page(), "run: python -m flsec.simulations.attack_forms > docs/attacks.md"
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == KINDS["attacks"].registry.names()


@pytest.mark.parametrize("name", KINDS["defenses"].registry.names())
def test_a_defense_says_what_it_goes_around(name):
    defense = KINDS["defenses"].registry.get(name)
    text = text_of(describe(name))
    assert f"flwr.server.strategy or of flwr.serverapp.strategy: {defense.__name__}(strategy, ...)." in text
    half = (defense.client_half or "").partition(":")[2]
    assert (f"mods=[{half}(...).mod]" in text) == bool(half)


def test_models_say_which_tasks_they_serve_and_attacks_and_defenses_which_they_fit():
    assert "Serves the tasks: nas, classification." in text_of(describe("darts_cell"))
    assert "Serves the tasks: classification." in text_of(describe("mlp"))
    assert "Fits every task." in text_of(describe("sign_flipping"))
    assert "Fits tasks with one class an example or sequences of labels." in text_of(describe("label_flipping"))
    assert "Fits tasks with inputs that are real numbers and one class an example." in text_of(describe("fedinv"))
    assert "validation_weight" in text_of(describe("nas"))


def test_an_attack_says_what_it_knows():
    assert "Knows: its own data and update, and the global model." in text_of(describe("sign_flipping"))
    assert "Knows: the attackers' updates." in text_of(describe("alie"))
    assert "Knows: the updates of all clients, and the defense." in text_of(describe("adaptive_line_search"))
