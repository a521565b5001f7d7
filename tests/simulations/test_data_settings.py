"""What `data` says beside the data set: a part of it, other units, changes in training."""

import numpy as np
import pytest
import torch

from flsec.client_apps.torch_client import TorchClient
from flsec.data import DATASETS, load_dataset
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.parameters import parameters_of
from flsec.simulations.checks import check_data
from flsec.simulations.clients import build_client
from flsec.simulations.config import make_config
from flsec.simulations.engine import run
from flsec.simulations.resources import Resources
from flsec.simulations.schema import DataEntry
from flsec.simulations.studies.reconstruct_settings import load_reconstruction
from flsec.training import get_weights
from tests.support.figures import figures


def config(data=None, **sections):
    settings = {
        "name": "data_settings",
        "data": {"name": "digits", **(data or {})},
        "model": {"name": "softmax", "zero_init": False},
        "training": {"learning_rate": 0.1},
        "simulation": {"engine": "inprocess", "num_clients": 4, "num_rounds": 2},
        **sections,
    }
    return make_config(settings)


# --- subset and test_subset


def test_clients_share_the_subset_whatever_the_seed():
    parts = [Resources(config({"subset": 200, "test_subset": 0.5}, seed=seed)) for seed in (0, 1)]
    for resources in parts:
        assert (len(resources.dataset.train), len(resources.dataset.test)) == (200, 180)
        assert resources.partition.sizes().tolist() == [50] * 4
    assert torch.equal(*(resources.dataset.train.tensors()[0] for resources in parts))
    assert not np.array_equal(*(resources.partition.indices for resources in parts))


def test_the_root_set_comes_out_of_the_subset():
    resources = Resources(config({"subset": 200, "root_samples": 30}, defenses=[{"name": "fltrust"}]))
    assert len(resources.root_data[1]) == 30
    assert len(resources.dataset.train) == 170


def test_natural_clients_of_a_subset_hold_their_own_samples(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.arange(90.0)[:, None], y=np.arange(90) % 3, client=np.arange(90) % 5)
    data = {"name": "npz", "file": str(tmp_path / "own.npz"), "subset": 0.5, "partition": {"name": "natural"}}
    resources = Resources(config(data, simulation={"num_clients": 5}))
    for client, rows in enumerate(resources.partition):
        x, _ = resources.dataset.train.tensors(rows)
        assert (x % 5 == client).all()


@pytest.mark.parametrize("key", ["subset", "test_subset"])
@pytest.mark.parametrize(("value", "words"), [(0, "int, at least 1 or float"), (1.5, "at most 1"), ("all", "float")])
def test_sizes_that_are_none_are_named(key, value, words):
    with pytest.raises(ConfigError, match=f"data.{key}: must be .*{words}"):
        config({key: value})


def test_a_subset_of_more_than_there_is_is_named_by_its_key():
    with pytest.raises(ConfigError, match=r"data.test_subset: .*1 to 359 samples.*got 400. Use for instance 35"):
        check_data(config({"test_subset": 400}))


# --- scale


def test_values_are_multiplied_everywhere():
    plain, raw = Resources(config()), Resources(config({"scale": 255}))
    for name in ("test_data", "auxiliary_data"):
        assert torch.allclose(getattr(raw, name)[0], 255 * getattr(plain, name)[0], rtol=1e-6)
    assert float(raw.dataset.train.tensors()[0].max()) == pytest.approx(255)
    assert raw.config.data.scale == 255.0


def test_scaled_bytes_are_the_bytes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x=images, y=np.arange(30) % 3, x_test=images, y_test=np.arange(30) % 3)
    resources = Resources(config({"name": "npz", "file": str(tmp_path / "own.npz"), "scale": 255.0}))
    assert torch.equal(resources.dataset.train.tensors()[0][:, 0], torch.from_numpy(images).float())


def attacked(scale, **attack):
    return config({"scale": scale}, attacks=[{"name": "badnets", **attack}], adversaries={"count": 1})


@pytest.mark.parametrize("features", [None, [1]])
def test_a_trigger_for_pixels_up_to_1_is_refused_for_others(features):
    attack = {} if features is None else {"features": features}
    with pytest.raises(ConfigError, match=r"attacks\[0\].value: .*largest is 255 here.*For example: value: 255.0"):
        attacked(255, **attack)
    assert attacked(255, value=255.0, **attack).data.scale == 255
    assert attacked(1.0, **attack).data.scale == 1


def test_a_defense_made_for_values_of_about_1_is_refused_for_others():
    with pytest.raises(ConfigError, match=r"defenses\[0\].*FedInv|made for values of about 1.*In data: scale: 1.0"):
        config({"scale": 255}, defenses=[{"name": "fedinv", "num_byzantine": 1}])


def test_normalised_values_are_not_scaled(tmp_path):
    (tmp_path / "t.csv").write_text("a,kind\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    data = {"name": "csv", "file": str(tmp_path / "t.csv"), "label": "kind", "standardize": True, "scale": 2.0}
    with pytest.raises(ConfigError, match=r"data.scale: normalised values cannot be scaled"):
        check_data(config(data))


@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_a_scale_is_a_positive_number(value):
    with pytest.raises(ConfigError, match=r"data.scale: must be"):
        config({"scale": value})


@pytest.mark.parametrize("data", ["scale: 255", "augment: {flip: true}"])
def test_a_study_of_reconstruction_refuses_other_pictures_than_the_clients(tmp_path, data):
    file = tmp_path / "study.reconstruct.yaml"
    file.write_text(f"experiment: {{data: {{{data}}}, model: {{name: softmax}}, training: {{learning_rate: 0.1}}}}\n")
    with pytest.raises(ConfigError, match=rf"experiment.data.{data.split(':')[0]}: a reconstruction is compared with"):
        load_reconstruction(file)


# --- augment


AUGMENT = {"augment": {"crop": 1, "flip": True}}


def trained(resources, client_id=0, round_=1):
    client = build_client(resources, client_id)
    start = get_weights(resources.new_model())
    return client.fit(start, {"server-round": round_})[0]


def test_training_is_changed_and_repeats_itself():
    plain, augmented = (Resources(config(data)) for data in ({}, AUGMENT))
    first = trained(augmented)
    assert all(np.array_equal(a, b) for a, b in zip(first, trained(augmented), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, trained(plain), strict=True))


def test_what_is_drawn_depends_on_seed_round_and_client():
    x, _ = load_dataset("digits").train.tensors(range(8))
    augmentation = config(AUGMENT).data.augment

    def drawn(seed=0, round_=1, client_id=0):
        client = TorchClient(
            build_model("softmax", (1, 8, 8), 10, 0),
            None,
            None,
            client_id=client_id,
            seed=seed,
            augmentation=augmentation,
        )
        return client._augment(round_)(x)

    assert torch.equal(drawn(), drawn())
    for other in (drawn(seed=1), drawn(round_=2), drawn(client_id=1)):
        assert not torch.equal(drawn(), other)


def test_batches_are_those_of_a_run_without_it(monkeypatch):
    """The samples of each batch are the same; only what the model sees of them differs."""
    seen = []
    monkeypatch.setattr("flsec.data.augmentation.Augmentation.apply", lambda self, x, generator: seen.append(x) or x)
    augmented, plain = (trained(Resources(config(data))) for data in (AUGMENT, {}))
    assert all(np.array_equal(a, b) for a, b in zip(augmented, plain, strict=True))
    assert sum(map(len, seen)) == 360


def test_test_root_and_client_samples_stay_as_they_are():
    defenses = [{"name": "fltrust"}]
    plain, augmented = (Resources(config(data, defenses=defenses)) for data in ({}, AUGMENT))
    for name in ("test_data", "auxiliary_data", "root_data"):
        assert torch.equal(getattr(plain, name)[0], getattr(augmented, name)[0])
    for client_id, (x, _) in plain.client_samples.items():
        assert torch.equal(x, augmented.client_samples[client_id][0])


def test_the_engines_agree_on_it(tmp_path):
    runs = [
        run(
            config(
                AUGMENT,
                simulation={"engine": engine, "num_clients": 4, "num_rounds": 2},
                output={"folder": str(tmp_path / engine), "plots": False},
            )
        )
        for engine in ("inprocess", "pooled")
    ]
    assert figures(runs[0]) == figures(runs[1])


def test_pictures_are_needed(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).random((30, 7)), y=np.arange(30) % 3)
    with pytest.raises(ConfigError, match=r"data.augment: needs pictures.*got \(7,\)"):
        check_data(config({"name": "npz", "file": str(tmp_path / "own.npz"), "augment": {"flip": True}}))
    with pytest.raises(ConfigError, match=r"data.augment.crop: crop must be smaller than the picture's sides"):
        check_data(config({"augment": {"crop": 8}}))


def test_it_can_be_written_and_read_again():
    whole = config(AUGMENT)
    assert whole.to_dict()["data"]["augment"] == {"crop": 1, "flip": True}
    assert make_config(whole.to_dict()) == whole
    with pytest.raises(ConfigError, match=r"no such key. Did you mean 'crop'"):
        config({"augment": {"crpo": 1}})


def test_a_data_sets_own_parameter_is_blamed_by_its_key():
    with pytest.raises(ConfigError, match=r"data.file: .*'nowhere.npz' not found"):
        check_data(config({"name": "npz", "file": "nowhere.npz"}))


def test_no_data_set_has_a_parameter_that_data_keeps_for_itself():
    for name, dataset in DATASETS.items():
        assert not set(parameters_of(dataset)) & set(DataEntry.model_fields), name
