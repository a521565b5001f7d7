"""flsec's apps as Flower's own command starts them: the run configuration, and SuperNodes that are no processes."""

import json
import threading
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from flsec._contracts.server import identify
from flsec.errors import ConfigError, NoProgressError
from flsec.simulations.config import load_config
from flsec.simulations.engine import run
from flsec.simulations.engines import flower_app, seats
from flsec.simulations.run_folder import RunFolder
from tests.support.deployed import IDS, Deployed, Node
from tests.support.figures import figures


def config_of(**run_config: str):
    return flower_app._config_of(Context(1, 1, {}, RecordDict(), dict(run_config)))


def test_set_takes_values_with_commas():
    config = config_of(experiment="quickstart", set="defenses=[{name: krum, num_byzantine: 2}],seed=3, name='a, b'")
    assert [(entry.name, entry.params["num_byzantine"]) for entry in config.defenses] == [("krum", 2)]
    assert (config.seed, config.name) == (3, "a, b")
    assert config_of(set="").name == "quickstart"


def test_what_is_wrong_is_named_by_its_own_part():
    with pytest.raises(ConfigError, match=r"--set seed=-1: seed: must be at least 0"):
        config_of(set="defenses=[{name: krum, num_byzantine: 2}],seed=-1")
    with pytest.raises(ConfigError, match=r"--set defenses=\[\{name: krum,seed=3:1: malformed YAML"):
        config_of(set="defenses=[{name: krum,seed=3")


EXPERIMENT = """
name: trial
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16}
defenses: [{name: centered_clipping, radius: 1.0}]
attacks: [{name: sign_flipping}]
adversaries: {count: 1}
strategy: {name: fedadam, eta: 0.05}
simulation: {engine: inprocess, num_clients: 4, num_rounds: 4}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    identify()
    monkeypatch.setattr(seats, "_PAUSE", 0.01)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    (tmp_path / "trial.yaml").write_text(EXPERIMENT)
    return tmp_path / "trial.yaml"


def deployment(num_clients: int, client=flower_app.client_app) -> Deployed:
    """Return SuperNodes in no order, whose clients are told nothing but by their messages."""
    order = [*range(1, num_clients), 0]
    nodes = (
        Node(node_id, {"partition-id": partition, "num-partitions": num_clients}, client)
        for node_id, partition in zip(IDS, order, strict=False)
    )
    return Deployed(*nodes)


def serve(grid: Deployed, **run_config: str) -> None:
    flower_app.server_app(grid, Context(1, 1, {}, RecordDict(), dict(run_config)))


def in_file(folder: Path) -> list[str]:
    return [f"output.folder={folder}"]


def test_supernodes_come_to_the_same_as_the_simulation(file: Path, tmp_path: Path) -> None:
    serve(deployment(4), experiment=str(file), set=f"output.folder={tmp_path / 'real'}")
    real = RunFolder(tmp_path / "real" / "trial")
    simulated = run(load_config(file, in_file(tmp_path / "simulated")))
    assert figures(real) == figures(simulated)
    assert (real.path / "model.safetensors").read_bytes() == (simulated.path / "model.safetensors").read_bytes()
    assert "configure_train" in (real.log).read_text()
    assert (real.path / "accuracy.png").stat().st_size > 1000


def test_settings_in_braces_are_an_experiment(file: Path, tmp_path: Path) -> None:
    config = load_config(file, in_file(tmp_path / "runs"))
    told = json.dumps(config.to_dict())
    assert config_of(experiment=told) == config
    assert config_of(experiment=told, set="seed=5").seed == 5
    with pytest.raises(ConfigError, match=r"the settings:1: simulation\.num_rounds: must be at least 1"):
        config_of(experiment=told.replace('"num_rounds": 4', '"num_rounds": 0'))


@pytest.mark.parametrize("defense", ["{name: centered_clipping, radius: 1.0}", "{name: siren}"])
def test_a_run_whose_server_died_goes_on_to_the_same_model(file: Path, tmp_path: Path, defense: str) -> None:
    grid = deployment(4)
    asked = []

    def push(messages):
        messages = list(messages)
        asked.append(messages[0].metadata.message_type)
        if asked.count("train") == 3:
            raise KeyboardInterrupt
        return Deployed.push_messages(grid, messages)

    grid.push_messages = push
    with pytest.raises(KeyboardInterrupt):
        serve(grid, experiment=str(file), set=f"output.folder={tmp_path / 'real'},defenses=[{defense}]")
    real = RunFolder(tmp_path / "real" / "trial")
    assert len(real.rounds()) == 3
    serve(deployment(4), resume=str(real.path), experiment="quickstart")  # which the clients do not train, then
    simulated = run(load_config(file, [*in_file(tmp_path / "simulated"), f"defenses=[{defense}]"]))
    assert figures(real) == figures(simulated)
    assert (real.path / "model.safetensors").read_bytes() == (simulated.path / "model.safetensors").read_bytes()
    kept = sorted(path.name for path in (tmp_path / "flwr").rglob("0/*.state"))  # of client 0, by round
    wanted = [f"siren-{round_:06d}.state" for round_ in (1, 2, 3, 4)] if "siren" in defense else []
    assert kept == wanted  # as many as the checkpoints of rounds 1 to 3 need, and the last


def test_a_simulation_with_clients_that_keep_something_does_not_go_on_elsewhere(file: Path, tmp_path: Path) -> None:
    folder = run(load_config(file, [*in_file(tmp_path), "defenses=[{name: siren}]", "simulation.num_rounds=1"])).path
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("num_rounds: 1", "num_rounds: 2"))
    with pytest.raises(ConfigError, match="is a simulation's: what its clients kept"):
        serve(deployment(4), resume=str(folder))


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run folder"):
        serve(deployment(4), resume=str(tmp_path / "nothing"))


def test_a_run_that_died_before_anything_was_saved_begins_again(tmp_path: Path, file: Path) -> None:
    folder = RunFolder.create(tmp_path, "empty", load_config(file).to_dict())
    serve(deployment(4), resume=str(folder.path))
    assert [record["round"] for record in folder.rounds()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("connected", [True, False])
def test_colluders_are_refused_on_supernodes(file: Path, tmp_path: Path, connected: bool) -> None:
    grid = deployment(4)
    for node in grid.nodes.values():
        node.online = connected
    if not connected:
        threading.Timer(1.0, lambda: [node.restart() for node in grid.nodes.values()]).start()
    overrides = f"attacks=[{{name: alie}}],output.folder={tmp_path / 'runs'}"
    with pytest.raises(ConfigError, match="ALIE needs several clients' updates"):
        serve(grid, experiment=str(file), set=overrides)
    assert not any("train" in node.asked for node in grid.nodes.values())
    assert not (tmp_path / "runs").exists()


def test_who_attacks_on_supernodes_is_known_where_the_file_says_it(file: Path, tmp_path: Path) -> None:
    honest = f"attacks=[],adversaries=null,output.folder={tmp_path}"
    serve(deployment(4), experiment=str(file), set=f"name=a,{honest}")
    for record in RunFolder(tmp_path / "a").rounds()[1:]:
        assert record["adversaries"] is None
        assert all(defense["detection"] is None for defense in record["defenses"])
    serve(deployment(4), experiment=str(file), set=f"name=b,output.folder={tmp_path},defenses=[{{name: oracle_sgd}}]")
    for record in RunFolder(tmp_path / "b").rounds()[1:]:
        (defense,) = record["defenses"]
        assert set(record["sampled"]) - set(defense["kept"]) == set(record["adversaries"])
        assert defense["detection"]["precision"] == 1.0


def test_where_no_client_answers_the_run_fails(file: Path, tmp_path: Path) -> None:
    def broken(message, context):
        if message.metadata.message_type == "train":
            raise RuntimeError("broken")
        return flower_app.client_app(message, context)

    for defenses in ("[]", "[{name: median}]"):
        with pytest.raises(NoProgressError, match=r"in none of 4 rounds .* RuntimeError: broken"):
            serve(
                deployment(4, broken),
                experiment=str(file),
                set=f"defenses={defenses},output.folder={tmp_path / 'runs'}",
            )
