"""Looking things up as a user does: quick, without torch, in a pipe and as JSON, whatever the kind of the name."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import flsec
from flsec.errors import ConfigError
from flsec.simulations import catalogue, cli, index
from flsec.simulations.config import load_config, packaged_experiments, resolve_experiment
from flsec.simulations.describe import describe, description, listed
from flsec.simulations.facts import facts_of, members_of
from flsec.simulations.lookup import names_or_files
from flsec.simulations.names import KINDS_OF_FILES, elsewhere, elsewhere_in_file, names_of
from flsec.simulations.studies.sweep import load_sweep
from flsec.simulations.yaml_lines import read

EVERYTHING = [(kind, name) for kind in catalogue.INDEXED for name in names_of(kind)]
FILES = [(kind, name) for kind in KINDS_OF_FILES for name in names_of(kind)]


def said(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


# --- the files that say it ---


def test_the_files_are_up_to_date() -> None:
    old = [path.name for path in index.outdated()]
    assert not old, f"run: {index.COMMAND}"


@pytest.mark.parametrize("changed", ["changed", "gone", "new"])
def test_what_has_changed_since_is_read_from_the_code(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index.members("tasks")["gan"] is catalogue.indexed("tasks")["gan"]
    written = catalogue._read("tasks")
    sources = dict(written["sources"])
    if changed == "changed":
        sources["tasks/gan.py"] = "0" * 12
    elif changed == "gone":
        sources["tasks/nowhere.py"] = "0" * 12
    else:
        del sources["tasks/gan.py"]
    monkeypatch.setattr(catalogue, "_read", lambda kind: {**written, "sources": sources, "members": {}})
    assert index.members("tasks")["gan"]["name"] == "gan"


def test_the_check_fails_with_the_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    file = tmp_path / "tasks.json"
    monkeypatch.setattr(index, "PACKAGE", tmp_path / "flsec")
    monkeypatch.setattr(index, "outdated", lambda: {} if file.is_file() else {file: "made"})
    assert index.main(["--check"]) == 1
    assert f"run: {index.COMMAND}" in capsys.readouterr().out
    assert not file.exists()
    assert index.main([]) == 0
    assert index.main(["--check"]) == 0


LIGHT = """
import json, sys
sys.argv = ["flsec", *json.loads(sys.argv[1])]
from flsec.simulations.cli import main
try:
    main()
except SystemExit as ended:
    assert ended.code in (0, None), ended.code
heavy = {"torch", "numpy", "pydantic", "flwr", "ray", "matplotlib"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["list"], ["describe", "krum", "--json"], ["init", "quickstart"], ["complete"]],
    ids=lambda words: words[0],
)
def test_looking_up_imports_nothing_heavy(arguments: list[str]) -> None:
    completing = {"_FLSEC_COMPLETE": "complete_bash", "COMP_WORDS": "flsec describe label_fl", "COMP_CWORD": "2"}
    environment = os.environ | (completing if arguments == ["complete"] else {})
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, json.dumps(arguments if arguments != ["complete"] else [])],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "heavy: []"
    wanted = {"--version": f"flsec {flsec.__version__}", "complete": "label_flipping", "list": "multi_krum"}
    assert wanted.get(arguments[0], "") in done.stdout


# --- what is shown ---


@pytest.mark.parametrize("kind", names_of("kinds"))
def test_a_list_is_one_whole_line_each_in_a_pipe(kind: str) -> None:
    lines = said("list", kind).splitlines()
    names = listed(kind)[kind]
    assert [line.split("  ")[0] for line in lines[1:]] == list(names)
    for line, summary in zip(lines[1:], names.values(), strict=True):
        assert summary.replace("``", "") in line
        assert summary.endswith((".", ")")), summary  # no sentence is cut off


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_a_description_loses_no_word_of_the_source_and_wraps_no_line(kind: str, name: str) -> None:
    document = inspect.getdoc(members_of(kind)[name]) or ""
    source = re.search(r"^Source:(.*?)(\n\n|\Z)", document, flags=re.DOTALL | re.MULTILINE)
    shown = said("describe", name)
    if source:
        assert " ".join(source[0].replace("``", "").split()) in shown
    meanings = [entry["meaning"] for facts in description(name) for entry in facts.get("parameters", ())]
    for meaning in meanings:
        assert [line for line in shown.splitlines() if meaning.replace("``", "") in line], meaning


CLIENT = """
import flwr.client
from flwr.clientapp import ClientApp
other = ClientApp()
class NumPyClient(flwr.client.NumPyClient):
    def fit(self, parameters, config): return parameters, 1, {}
class Toy(NumPyClient): ...
client, client_fn = Toy(), lambda context: Toy().to_client()
"""


@pytest.mark.parametrize(("kind", "name"), [entry for entry in EVERYTHING if entry[0] != "sections"])
def test_what_is_shown_in_python_runs(kind: str, name: str) -> None:
    (lines,) = (facts["python"] for facts in description(name) if facts["kind"] == kind)
    assert lines[0].startswith("from flsec")
    calls = [line for line in lines if "..." in line.replace("class Client(NumPyClient): ...", "")]
    if not calls:  # nothing of it is a simulation's to supply
        code = "\n".join(lines).replace("@app.train", "@other.train")
        code = code.replace("# or a mod of a function that trains", "\ndef train(message, context): ...")
        exec(CLIENT + code, {}) if kind not in ("datasets", "models") else compile(code, name, "exec")
    else:
        exec("\n".join(line for line in lines if line.startswith("from")), {})


def test_the_forms_of_attacks_and_the_wrapper_of_defenses_are_shown() -> None:
    krum = description("krum")[0]["python"]
    assert krum[-1] == "strategy = Krum(FedAvg(), num_byzantine=2)"
    attack = "\n".join(description("sign_flipping")[0]["python"])
    for form in ("@SignFlipping()", "SignFlipping()(client)", "mods=[SignFlipping().mod]", "@app.train(mods="):
        assert form in attack
    assert "Adversary(FedAvg(), attacks=[MinMax(adversaries=who)])" in "\n".join(description("min_max")[0]["python"])
    assert description("krum")[0]["docs"] == "defenses/krum"


def test_names_of_ones_own_are_described_by_import() -> None:
    by_path = description("flsec.strategies.krum:Krum")[0]
    assert by_path["kind"] == "defenses"
    assert by_path["parameters"] == facts_of("defenses", "krum", members_of("defenses")["krum"])["parameters"]
    for path, kind in [
        ("flsec.client_apps.sign_flipping:SignFlipping", "attacks"),
        ("flsec.models.mlp:MLP", "models"),
        ("flsec.data.partitioners.iid:iid", "partitioners"),
        ("flsec.data.datasets.digits:digits", "datasets"),
        ("flwr.serverapp.strategy:FedMedian", "strategies"),
    ]:
        assert description(path)[0]["kind"] == kind
    with pytest.raises(ConfigError, match="cannot be imported"):
        describe("nobody.knows:This")


def test_json_says_the_same() -> None:
    assert json.loads(said("list", "--json")) == listed()
    assert json.loads(said("describe", "krum", "--json")) == description("krum")
    checked = json.loads(said("check", "quickstart", "--json"))
    assert checked["fine"]
    assert checked["size"] in said("check", "quickstart")
    wrong = CliRunner().invoke(cli.app, ["check", "quickstart", "--json", "--set", "seed=x", "--set", "zzz=1"])
    assert wrong.exit_code == 2
    problems = json.loads(wrong.output)["problems"]
    assert sorted(problem.split(":")[0] for problem in problems) == ["--set seed=x", "--set zzz=1"]


# --- names of another kind ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run attack_table", "attack_table is a sweep: flsec sweep attack_table"),
        ("run Attack_Table", "attack_table is a sweep: flsec sweep attack_table"),
        ("run krum", "krum is a defense: flsec describe krum"),
        (
            "run reconstruction/quick",
            "reconstruction/quick is a reconstruction: flsec reconstruct reconstruction/quick",
        ),
        ("run siren/fig9", "siren/fig9 is a claim of a paper: flsec reproduce siren/fig9"),
        ("submit attack_table", "attack_table is a sweep: flsec sweep attack_table"),
        ("sweep quickstart", "quickstart is an experiment: flsec run quickstart"),
        ("reconstruct attack_table", "attack_table is a sweep: flsec sweep attack_table"),
        ("reproduce quickstart", "quickstart is an experiment: flsec run quickstart"),
        ("check defenses", "defenses is a kind of names: flsec list defenses"),
        ("describe sweeps", "sweeps is a kind of names: flsec list sweeps"),
        ("list krum", "krum is a defense: flsec describe krum"),
        ("init sign_flipping", "sign_flipping is an attack: flsec describe sign_flipping"),
        ("run own.sweep.yaml", "own.sweep.yaml is a sweep: flsec sweep own.sweep.yaml"),
        ("sweep own.yaml", "own.yaml is an experiment: flsec run own.yaml"),
        ("run finished", "finished is the folder of a run. To go on with it: flsec run --resume finished"),
    ],
)
def test_a_name_of_another_kind_gets_the_command_that_takes_it(
    arguments: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("model: {name: mlp}\ntraining: {learning_rate: 0.1}\n")
    Path("own.sweep.yaml").write_text("experiment: quickstart\nvary: {seed: [1, 2]}\n")
    Path("finished").mkdir()
    Path("finished/config.yaml").write_text("model: {name: mlp}\n")
    result = CliRunner().invoke(cli.app, shlex.split(arguments))
    assert isinstance(result.exception, ConfigError), result.output
    assert sentence in str(result.exception)
    command = sentence.partition("flsec ")[2].split()[0]
    assert command in {info.name or info.callback.__name__ for info in cli.app.registered_commands}


def test_every_name_is_told_from_every_other_kind() -> None:
    for kind in ("sweeps", "reconstructions", "tasks", "models"):
        for name in names_of(kind):
            assert elsewhere(name, "kinds") is not None
            if sum(name in names_of(other) for other in (*catalogue.INDEXED, *KINDS_OF_FILES, "papers", "claims")) == 1:
                assert elsewhere(name, kind) is None
    assert elsewhere("nothing of the kind") is elsewhere_in_file("nothing of the kind") is None


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "defenses=[{name: sign_flipping}]",
            "defenses[0].name: no defense 'sign_flipping'. sign_flipping is an attack",
        ),
        ("attacks=[{name: Krum}]", "attacks[0].name: no attack 'Krum'. krum is a defense, and stands in defenses."),
        ("strategy.name=multi_krum", "no strategy 'multi_krum'. multi_krum is a defense"),
        ("model.name=digits", "no model 'digits'. digits is a data set, and stands in data."),
        ("data.name=iid", "no data set 'iid'. iid is a partitioner, and stands in data.partition."),
    ],
)
def test_in_a_file_too(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(resolve_experiment("quickstart"), [setting])
    assert words in str(caught.value)


# --- files to begin with ---


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_init_prints_the_packaged_file_with_its_comments(kind: str, name: str) -> None:
    text, packaged = said("init", name), packaged_experiments(KINDS_OF_FILES[kind])[name]
    assert text.endswith(packaged.read_text())
    assert read(text)[0] == read(packaged)[0]
    schema, command = text.splitlines()[:2]
    place = schema.removeprefix("# yaml-language-server: $schema=")
    assert command.endswith(f"> {place}")
    assert command.startswith("# Made by: flsec schema")


def test_what_init_wrote_runs_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(said("init", "quickstart"))
    small = ["engine=inprocess", "num_rounds=2", "num_clients=12"]
    settings = [word for change in small for word in ("--set", f"simulation.{change}")]
    settings += [
        "--set",
        "defenses[0].num_byzantine=3",
        "--set",
        "adversaries={count: 2}",
        "--set",
        "output.plots=false",
    ]
    for file in ("my.yaml", "quickstart"):
        assert CliRunner().invoke(cli.app, ["run", file, *settings]).exit_code == 0
    mine, packaged = (json.loads(Path(f"runs/{name}/summary.json").read_text()) for name in ("my", "quickstart"))
    for value in ("accuracy", "loss", "detection", "attack"):
        assert mine[value] == packaged[value]


def test_a_sweep_from_init_finds_the_experiment_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(said("init", "sparsefed/trade_off"))
    mine, packaged = load_sweep("my.yaml"), load_sweep(resolve_experiment("sparsefed/trade_off", ".sweep"))
    assert [cell.labels for cell in mine.cells] == [cell.labels for cell in packaged.cells]
    for cell, other in zip(mine.cells, packaged.cells, strict=True):
        assert cell.config.to_dict() | {"output": None} == other.config.to_dict() | {"output": None}


# --- help and completion ---


def commands() -> list[tuple[str, typer.core.TyperCommand]]:
    group = typer.main.get_command(cli.app)
    context = group.make_context("flsec", ["--version"], resilient_parsing=True)
    return [(name, group.get_command(context, name)) for name in group.list_commands(context)]


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_has_help_and_an_example_that_it_takes(name: str, command: typer.core.TyperCommand) -> None:
    assert command.help
    assert command.epilog.startswith(f"Example: flsec {name}")
    words = shlex.split(command.epilog.removeprefix("Example: flsec ").partition(" > ")[0])
    command.make_context(name, words[1:])
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
        if parameter.param_type_name == "argument":
            assert re.search(r"such as [\w./]+|Of which", parameter.help), f"{name} {parameter.name} has no example"
    assert command.params[0].help.split()[0] in said(name, "--help")


def test_examples_in_help_exist() -> None:
    for name in ("quickstart", "attack_table", "reconstruction/quick", "krum", "siren/fig5_40"):
        assert elsewhere(name), name
    assert "siren/fig5_40" in said("reproduce", "--help")


def test_names_and_files_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("quick.yaml", "quick.txt", "folder/a.yaml", ".hidden/b.yaml"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("")
    assert names_or_files("experiments")("quick") == ["quickstart", "quick.yaml"]
    assert names_or_files("sweeps", files=False)("quick") == []
    assert names_or_files("sweeps")("fo") == ["folder/"]
    assert names_or_files("sweeps")("folder/") == ["folder/a.yaml"]
    assert names_or_files()("nowhere/") == []


def test_completion_installs(tmp_path: Path) -> None:
    code = "import sys; sys.argv[0] = 'flsec'; from flsec.simulations.cli import main; main()"
    command = [sys.executable, "-c", code, "--install-completion", "bash"]
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_FLSEC_COMPLETE=complete_bash" in script.read_text()
