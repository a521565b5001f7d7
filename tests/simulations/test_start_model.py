"""Runs that start from a trained model."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config, make_config
from flsec.simulations.yaml_lines import dump

BASE = {
    "name": "trained",
    "data": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"learning_rate": 0.2},
    "simulation": {"engine": "inprocess", "num_clients": 5, "num_rounds": 2},
}


@pytest.fixture
def run(tmp_path):
    def start(number=0, **changes):
        output = {"folder": str(tmp_path / f"runs-{number}"), "plots": False}
        return engine.run(make_config({**BASE, "output": output, **changes}))

    return start


def of(path, **changes):
    return {"model": {**BASE["model"], "from": str(path), **changes}}


def test_it_goes_on_where_the_other_ended_by_folder_and_by_file(run):
    first = run()
    for number, path in enumerate((first.path, first.path / "model.safetensors"), start=1):
        second = run(number, **of(path))
        assert second.rounds()[0]["accuracy"] == first.rounds()[-1]["accuracy"] > 0.2
        environment = json.loads((second.path / "environment.json").read_text())
        file = first.path / "model.safetensors"
        assert environment["model_from"] == {
            "file": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    assert "model_from" not in json.loads((first.path / "environment.json").read_text())


def test_the_resolved_file_has_the_absolute_path_and_runs_again(run, tmp_path, monkeypatch):
    first = run()
    monkeypatch.chdir(first.path.parent)
    second = run(1, **of(first.path.name))
    monkeypatch.chdir(tmp_path)
    again = load_config(second.path / "config.yaml")
    assert again.model.start == str(first.path / "model.safetensors")
    assert again.to_dict()["model"]["from"] == again.model.start


def test_a_resumed_run_goes_on_from_its_checkpoint(run):
    second = run(1, **of(run().path))
    whole = load_file(second.path / "model.safetensors")
    resumed = engine.resume(second.path, from_round=1)
    assert all(torch.equal(whole[name], value) for name, value in load_file(resumed.path / "model.safetensors").items())


def test_attackers_train_the_trained_model_too(run):
    attack = {"attacks": [{"name": "a3fl", "num_auxiliary": 16}], "adversaries": {"count": 1, "rounds": [2]}}
    assert run(1, **of(run().path), **attack).rounds()[-1]["attack"]["attack_success"] is not None


def refusal(run, path, **changes):
    with pytest.raises(ConfigError, match=r"model\.from|from:") as caught:
        run(9, **of(path, **changes))
    assert "\n" not in str(caught.value).strip()
    return str(caught.value)


def test_what_is_no_trained_model_is_refused_before_the_run(run, tmp_path):
    assert "there is no" in refusal(run, tmp_path / "nothing.safetensors")
    assert "has no model.safetensors" in refusal(run, tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"pickle")
    assert "is no .safetensors file" in refusal(run, tmp_path / "weights.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert "cannot be read" in refusal(run, tmp_path / "torn.safetensors")
    assert not (tmp_path / "runs-9").exists()


def test_another_models_arrays_are_refused_by_name(run, tmp_path):
    file = run().path / "model.safetensors"
    assert "has the shape" in refusal(run, file, hidden=[9])
    with pytest.raises(ConfigError, match=r"model\.from: .* is of another model: it has no "):
        run(9, model={"name": "softmax", "from": str(file)})
    arrays = load_file(file)
    name = sorted(arrays)[0]
    save_file({key: value for key, value in arrays.items() if key != name}, tmp_path / "fewer.safetensors")
    assert f"it has no {name}" in refusal(run, tmp_path / "fewer.safetensors")
    save_file({**arrays, "extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    assert "it has extra, which is not here" in refusal(run, tmp_path / "more.safetensors")
    save_file({**arrays, name: arrays[name] * torch.nan}, tmp_path / "nan.safetensors")
    assert "holds NaN or infinity" in refusal(run, tmp_path / "nan.safetensors")


def test_a_wrong_type_and_a_misspelt_key_are_told(tmp_path):
    file = tmp_path / "trial.yaml"
    for wrong, said in ((3, "model.from"), ("", "model.from")):
        file.write_text(dump({**BASE, "model": {**BASE["model"], "from": wrong}}))
        with pytest.raises(ConfigError, match=said):
            load_config(file)
    file.write_text(dump({**BASE, "model": {**BASE["model"], "form": "runs"}}))
    with pytest.raises(ConfigError, match=r"Legal here: name, from, "):
        load_config(file)


def test_what_else_is_wrong_is_told_as_well():
    with pytest.raises(ConfigError) as caught:
        make_config({**BASE, **of("nowhere"), "training": {"learning_rate": -1.0}})
    told = str(caught.value)
    assert "model.from: there is no" in told
    assert "training.learning_rate" in told
