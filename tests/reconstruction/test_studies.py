"""What the attacks reach at their default settings on real data; minutes of work each. Figures: run with -s."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from flsec.data import DATASETS
from flsec.metrics import psnr, reconstruction_scores
from flsec.models import build_model
from flsec.randomness import generator
from flsec.reconstruction import LocalSteps, analytic_inverse, deep_leakage, invert_gradients, reveal_labels
from flsec.simulations.studies.leakage_plots import plot_pairs
from flsec.training import Training, evaluate, train
from tests.reconstruction.problems import gradients_of, sgd_by_hand

pytestmark = pytest.mark.slow


@pytest.fixture
def data_root() -> Path:
    root = os.environ.get("FLSEC_DATA")
    if root is None:
        pytest.skip("FLSEC_DATA is not set; set it to a folder with MNIST, cifar10 and chars74k_hnd")
    return Path(root)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_deep_leakage_of_one_image_from_ten_seeds(dataset: str, data_root: Path) -> None:
    source = DATASETS.get(dataset)(str(data_root))
    decibels, right = [], 0
    for seed in range(10):
        x, y = source.train.tensors([97 * seed + 5 if dataset == "mnist" else 4999 * seed + 5])  # cifar10 is sorted
        model = build_model("dlg_lenet", source.input_shape, 10, seed=seed)
        observed = gradients_of(model, x, y)
        result = deep_leakage(model, observed, input_shape=source.input_shape, num_classes=10, seed=seed)
        decibels.append(float(psnr(result.inputs, x)[0]))
        right += int(result.labels == y)
        iterations = [len(losses) for losses in result.history]
        print(
            f"{dataset} seed {seed}: {decibels[-1]:.1f} dB, loss {result.loss:.1e}, iterations {iterations}", flush=True
        )
    print(f"{dataset}: {sum(value > 30 for value in decibels)} of 10 above 30 dB, {right} of 10 labels")
    assert sum(value > 30 for value in decibels) >= 8
    assert right >= 8


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_deep_leakage_reaches_the_analytic_inverse_of_softmax(dataset: str, data_root: Path) -> None:
    source = DATASETS.get(dataset)(str(data_root))
    x, y = source.train.tensors([7])
    model = build_model("softmax", source.input_shape, 10, seed=0)
    form = {"input_shape": source.input_shape, "num_classes": 10}
    exact = analytic_inverse(model, gradients_of(model, x, y), **form)
    result = deep_leakage(model, gradients_of(model, x, y), **form)
    print(f"{dataset}: {psnr(result.inputs, exact.inputs)[0]:.1f} dB to the analytic inverse", end=", ")
    print(f"which has {psnr(exact.inputs, x)[0]:.1f} dB", flush=True)
    assert psnr(result.inputs, exact.inputs)[0] > 40
    assert torch.equal(result.labels, exact.labels)


def test_five_local_steps_unrolled_and_as_one_gradient(data_root: Path) -> None:
    source = DATASETS.get("mnist")(str(data_root))
    decibels = []
    for seed in range(3):
        x, y = source.train.tensors([31 * seed + 2])
        model = build_model("dlg_lenet", source.input_shape, 10, seed=seed)
        end = sgd_by_hand(model, [(x, y)] * 5, rate=0.1)
        observed = [(p.detach() - after) / 0.5 for p, after in zip(model.parameters(), end, strict=True)]
        form = {"input_shape": source.input_shape, "num_classes": 10, "labels": y, "restarts": 2}
        results = [
            deep_leakage(model, observed, **form, local_steps=steps, max_iterations=600)
            for steps in (LocalSteps(learning_rate=0.1, steps=5), None)
        ]
        decibels.append([float(psnr(result.inputs.clamp(0, 1), x)[0]) for result in results])
        print(f"seed {seed}: unrolled {decibels[-1][0]:.1f} dB, as one gradient {decibels[-1][1]:.1f} dB", flush=True)
    unrolled, as_one = np.mean(decibels, axis=0)
    assert unrolled > as_one + 10
    assert unrolled > 30


@pytest.mark.parametrize(
    ("dataset", "index"),
    [("mnist", 7), ("cifar10", 12345)],
)
def test_inverting_gradients_of_a_residual_network(dataset: str, index: int, data_root: Path, tmp_path: Path) -> None:
    """Without pooling; with the mean over all positions before the last layer only outlines come back (11 dB)."""
    source = DATASETS.get(dataset)(str(data_root))
    x, y = source.train.tensors([index])
    model = build_model("resnet_gn", source.input_shape, 10, seed=0, blocks=1, channels=32, pooling="none")
    observed = gradients_of(model, x, y)
    result = invert_gradients(model, observed, input_shape=source.input_shape, num_classes=10)
    others, _ = source.test.tensors(range(0, len(source.test), 20))
    scores = reconstruction_scores(result.inputs, x, others, labels=result.labels, true_labels=y)
    plot_pairs(x.numpy(), result.inputs.numpy(), tmp_path / "pair.png", f"{dataset} {index}")
    print(f"{dataset}: {scores}; see {tmp_path / 'pair.png'}", flush=True)
    assert scores.label_accuracy == 1
    assert scores.reconstruction.psnr > scores.mean_image.psnr + 4
    assert scores.reconstruction.psnr > scores.random_image.psnr + 4
    assert scores.reconstruction.ssim > 0.7


def characters(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    path = root / "chars74k_hnd" / "chars74k_hnd.npz"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    with np.load(path) as data:
        return torch.from_numpy(data["images"])[:, None] / 255, torch.from_numpy(data["labels"].astype(np.int64))


def shares_found(model, x, y, batches) -> tuple[float, int]:
    """Return the mean share of right labels and the number of batches with all right."""
    shares = []
    for rows in batches:
        form = {"input_shape": x.shape[1:], "num_classes": 62, "batch_size": len(rows)}
        counts = reveal_labels(model, gradients_of(model, x[rows], y[rows]), **form).counts
        shares.append(float(torch.minimum(counts, torch.bincount(y[rows], minlength=62)).sum()) / len(rows))
    return float(np.mean(shares)), sum(share == 1 for share in shares)


def batches_of(y: torch.Tensor, size: int, distinct: bool, count: int) -> list[list[int]]:
    rng = torch.Generator().manual_seed(size)
    if not distinct:
        return [torch.randint(len(y), (size,), generator=rng).tolist() for _ in range(count)]
    rows = [[int(i) for i in (y == c).nonzero().flatten()] for c in range(62)]
    return [
        [rows[c][int(torch.randint(55, (), generator=rng))] for c in torch.randperm(62, generator=rng)[:size]]
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", ["dlg_lenet", "mlp", "fedinv_cnn", "resnet_gn"])
def test_labels_of_the_62_characters_on_untrained_networks(name: str, data_root: Path) -> None:
    x, y = characters(data_root)
    for size in (8, 16, 24, 32):
        for distinct in (True, False):
            share = exact = 0
            for seed in range(3):
                model = build_model(name, (1, 28, 28), 62, seed=seed).eval()
                found = shares_found(model, x, y, batches_of(y, size, distinct, 4))
                share, exact = share + found[0] / 3, exact + found[1]
            kind = "distinct" if distinct else "random"
            print(f"{name} {size} {kind}: {share:.3f} of the labels, {exact} of 12 batches exact", flush=True)
            if distinct:
                assert exact == 12
            else:
                assert share > 0.95


@pytest.mark.parametrize(("name", "settings"), [("mlp", {}), ("siren_cnn", {"channels": 16, "hidden": 64})])
def test_labels_of_the_62_characters_on_a_trained_network(name: str, settings: dict, data_root: Path) -> None:
    """The set of distinct classes stays readable; how repeats are spread over it becomes a guess."""
    x, y = characters(data_root)
    model = build_model(name, (1, 28, 28), 62, seed=0, **settings)
    done = 0
    for epochs in (1, 10, 30):
        training = Training(learning_rate=0.1, epochs=epochs - done, batch_size=32)
        train(model, x, y, training, round=1, generator=generator(epochs))
        done = epochs
        accuracy = evaluate(model, x, y).accuracy
        for size in (8, 32):
            for distinct in (True, False):
                share, exact = shares_found(model, x, y, batches_of(y, size, distinct, 6))
                kind = "distinct" if distinct else "random"
                print(
                    f"{name} accuracy {accuracy:.2f} {size} {kind}: {share:.3f}, {exact} of 6 batches exact", flush=True
                )
                if distinct:
                    assert share > 0.9
    assert accuracy > 0.8  # it has learnt something
