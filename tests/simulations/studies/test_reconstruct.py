"""`flsec reconstruct`: updates come from real clients, figures from the best matching, and messages say where."""

import json

import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.metrics import psnr
from flsec.simulations import engine
from flsec.simulations.cli import main
from flsec.simulations.config import load_config, packaged_experiments, resolve_experiment
from flsec.simulations.resources import Resources
from flsec.simulations.studies.reconstruct import (
    Bench,
    Case,
    cases_of,
    leakage_table,
    load_reconstruction,
    run_reconstruction,
)
from flsec.training import get_weights
from tests.reconstruction.problems import gradients_of

STUDY = """\
seed: 3
experiment:
  data: {name: digits}
  model: {name: dlg_lenet}
  training: {learning_rate: 0.1, steps: 1, batch_size: 1.0}
  simulation: {num_clients: 5, engine: inprocess, num_rounds: 2}
clients: [1, 3]
images: 2
batches: 2
attack: {name: invert_gradients, max_iterations: 2}
through:
  - {name: unchanged}
  - {name: norm_clipping, max_norm: [0.5, 0.1]}
output: {folder: results}
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write(tmp_path):
    def written(*replacements, text=STUDY):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "study.reconstruct.yaml").write_text(text)
        return "study.reconstruct.yaml"

    return written


def bench(file, *overrides):
    study = load_reconstruction(file, overrides)
    return Bench(study), list(cases_of(study))


def flat(observation):
    return [torch.from_numpy(b - a) for a, b in zip(observation.sent, observation.received, strict=True)]


def total(arrays):
    return torch.cat([a.flatten() for a in arrays]).double()


# --- where updates come from ------------------------------------------------------------------------------------


def test_the_update_is_what_the_experiments_client_does_on_these_images(write):
    """One full-batch step is the gradient of the mean loss on exactly the images that are compared with."""
    study, cases = bench(write())
    model = study.experiment.new_model()
    for case in cases[:4]:
        x, y = study.examples(case)
        assert len(x) == 2
        observation = study.observation(case)
        for a, b in zip(observation.gradients(model), gradients_of(model, x, y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    rows = [tuple(study.rows(case.client, case.batch)) for case in cases[:4]]
    assert len({row for pair in rows for row in pair}) == 8  # no image twice
    for case, chosen in zip(cases[:4], rows, strict=True):
        assert set(chosen) <= set(study.experiment.partition[case.client].tolist())


def test_several_local_steps_are_assumed_as_they_were_taken(write):
    steps = ("steps: 1, batch_size: 1.0", "epochs: 3, batch_size: 1")
    study, cases = bench(write(steps))
    observation = study.observation(cases[0])
    assert (observation.steps, observation.batch_size, observation.examples) == (6, 1, 2)
    assert observation.learning_rate == 0.1
    late, cases = bench(write(steps, ("learning_rate: 0.1", "learning_rate: 0.1, schedule: inverse_sqrt")))
    assert late.observation(cases[0]).learning_rate == 0.1  # round 1


def test_labels_are_told_only_where_they_are_known(write):
    study, cases = bench(write())
    assert study.observation(cases[0]).labels is None
    study, cases = bench(write(("images: 2", "images: 2\nlabels: known")))
    assert study.observation(cases[0]).labels == tuple(study.examples(cases[0])[1].tolist())


def test_the_baselines_see_no_image_that_is_rebuilt(write):
    study, cases = bench(write())
    truth = torch.cat([study.examples(case)[0] for case in cases[:4]]).flatten(1)
    distances = torch.cdist(truth, study.others.flatten(1))
    assert len(study.others) == 1000
    assert distances.min() > 0.01


# --- what updates go through ------------------------------------------------------------------------------------


def seen(write, through):
    study, cases = bench(
        write(("- {name: norm_clipping, max_norm: [0.5, 0.1]}", f"- {through}"), ("images: 2", "images: 1"))
    )
    plain = {
        (case.client, case.batch): total(flat(study.observation(case))) for case in cases if not case.change.strength
    }
    changed = [(case, study.observation(case)) for case in cases if case.change.strength]
    return study, plain, changed


def test_clipping_keeps_the_direction(write):
    _, plain, changed = seen(write, "{name: norm_clipping, max_norm: [0.5, 0.001, 1000.0]}")
    for case, observation in changed:
        before, after = plain[case.client, case.batch], total(flat(observation))
        assert after.norm() == pytest.approx(min(case.strength, float(before.norm())), rel=1e-3)
        assert torch.cosine_similarity(before, after, dim=0) > 0.99
    assert len(changed) == 3 * 2 * 2


def test_sparsifying_keeps_the_largest_entries(write):
    _, plain, changed = seen(write, "{name: top_k, share: [0.1, 1.0]}")
    for case, observation in changed:
        before, after = plain[case.client, case.batch], total(flat(observation))
        kept = after != 0
        assert int(kept.sum()) <= round(case.strength * len(before))
        torch.testing.assert_close(after[kept], before[kept], rtol=1e-3, atol=1e-7)
        if case.strength < 1:
            assert before[~kept].abs().max() <= before[kept].abs().min() + 1e-7


def test_statistics_are_mixed_and_get_no_noise(write):
    """BatchNorm's are no weights: what perturbs updates leaves them as clients have made them."""
    model = ("{name: dlg_lenet}", "{name: tests.support.batch_norm:Model}")
    through = "- {name: norm_clipping, max_norm: [0.5, 0.1]}"
    changes = "- {name: weak_dp, std: [9.0]}\n  - {name: averaging, num_clients: [2]}"
    study, cases = bench(write(model, (through, changes)))
    place = list(study.model.state_dict()).index("normalise.running_var")
    plain, noisy, mixed = ({} for _ in range(3))
    by_name = {"unchanged": plain, "weak_dp": noisy, "averaging": mixed}
    for case in cases:
        by_name[case.through][case.client, case.batch] = study.observation(case).received[place]
    assert all(np.array_equal(noisy[key], plain[key]) for key in plain)
    next_door = Case("unchanged", cases[0].change, 0.0, 2, 0)
    expected = (plain[1, 0] + study.observation(next_door).received[place]) / 2
    np.testing.assert_allclose(mixed[1, 0], expected, rtol=1e-6)


def test_noise_has_its_deviation_and_differs_between_clients(write):
    study, plain, changed = seen(write, "{name: weak_dp, std: [0.01], max_norm: 1000.0}")
    noises = [total(flat(observation)) - plain[case.client, case.batch] for case, observation in changed]
    for noise in noises:
        assert noise.std() == pytest.approx(0.01, rel=0.05)
        assert abs(float(noise.mean())) < 0.001
    for i in range(len(noises)):
        for j in range(i):
            assert abs(torch.corrcoef(torch.stack([noises[i], noises[j]]))[0, 1]) < 0.1
    case, observation = changed[0]
    assert torch.equal(total(flat(study.observation(case))), total(flat(observation)))  # the same again


def test_soteria_leaves_columns_of_the_last_layer_out(write):
    study, _, changed = seen(write, "{name: soteria, percentile: [25, 75]}")
    for case, observation in changed:
        *others, weight, bias = flat(observation)
        gone = (weight == 0).all(dim=0)
        assert int(gone.sum()) == pytest.approx(weight.shape[1] * case.strength / 100, abs=2)
        assert bias.abs().min() > 0
        assert all(bool(array.any()) for array in others)
    assert study.experiment.halves == []


def test_averaging_is_the_gradient_of_all_their_images(write):
    study, _, changed = seen(write, "{name: averaging, num_clients: [2, 5]}")
    model = study.experiment.new_model()
    for case, observation in changed:
        x, y = study.examples(case)
        mixed = int(case.strength)
        assert (len(x), observation.examples, observation.batch_size) == (mixed, mixed, mixed)
        assert len({int(row) for member in study.members(case) for row in study.rows(member, case.batch)}) == mixed
        for a, b in zip(observation.gradients(model), gradients_of(model, x, y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert study.members(changed[-1][0]) == [3, 4, 0, 1, 2]


# --- what comes out ---------------------------------------------------------------------------------------------


def test_writes_rows_with_both_baselines_pictures_and_a_curve_and_goes_on_where_it_stopped(write):
    study = load_reconstruction(write())
    progress = []
    folder = run_reconstruction(study, lambda *done: progress.append(done))
    assert str(folder) == "results/study"
    assert progress == [(i, 12) for i in range(1, 13)]
    lines = (folder / "reconstruction.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(r["through"], r["strength"], r["client"], r["batch"]) for r in rows] == [
        (through, strength, client, batch)
        for through, strength in (("unchanged", 0.0), ("norm_clipping", 0.5), ("norm_clipping", 0.1))
        for client in (1, 3)
        for batch in (0, 1)
    ]
    for row in rows:
        for similarity in (row, row["mean_image"], row["random_image"]):
            assert np.isfinite([similarity["mse"], similarity["psnr"], similarity["ssim"]]).all()
        assert 0 <= row["label_accuracy"] <= 1
        assert (row["images"], row["iterations"], row["error"]) == (2, 2, None)
    assert len(list((folder / "pictures").glob("*.png"))) == 12
    assert (folder / "leakage.png").stat().st_size > 5000
    summary = json.loads((folder / "summary.json").read_text())
    assert [entry["through"] for entry in summary] == ["unchanged", "norm_clipping", "norm_clipping"]
    assert summary[0]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in rows[:4]]))
    # stopped in the middle of a line
    (folder / "reconstruction.jsonl").write_text("\n".join([*lines[:7], lines[7][:40]]))
    run_reconstruction(load_reconstruction(folder / "config.yaml"))
    again = [json.loads(line) for line in (folder / "reconstruction.jsonl").read_text().splitlines()]
    for a, b in zip(again, rows, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    with pytest.raises(ConfigError, match="holds something else than this study"):
        run_reconstruction(load_reconstruction(write(), ["seed=4"]))


def test_rebuilds_digits_and_scores_them_by_the_best_matching(write):
    """deep_leakage at its defaults; the figures are those of the images themselves, computed here."""
    file = write(
        ("clients: [1, 3]", "clients: [1]"),
        ("images: 2\nbatches: 2", "images: 1\nbatches: 1\nlabels: searched"),
        ("{name: invert_gradients, max_iterations: 2}", "{name: deep_leakage}"),
        ("\n  - {name: norm_clipping, max_norm: [0.5, 0.1]}", ""),
    )
    folder = run_reconstruction(load_reconstruction(file))
    (row,) = (json.loads(line) for line in (folder / "reconstruction.jsonl").read_text().splitlines())
    study, (case,) = bench(file)
    rebuilt = study.invert(case, study.observation(case)).inputs.clamp(0, 1)
    assert row["psnr"] == pytest.approx(psnr(rebuilt, study.examples(case)[0])[0])
    assert row["psnr"] > 30 > row["mean_image"]["psnr"] > 5
    assert row["label_accuracy"] == 1
    from rich.console import Console

    console = Console(width=100, record=True, file=open("table.txt", "w"))  # noqa: SIM115
    console.print(leakage_table(folder))
    assert f"{row['psnr']:.1f}" in console.export_text()


def test_an_update_that_holds_nothing_is_a_row_without_figures(write):
    nothing = (
        "- {name: unchanged}\n  - {name: norm_clipping, max_norm: [0.5, 0.1]}",
        "- {name: norm_clipping, max_norm: [1.0e-30]}",
    )
    folder = run_reconstruction(load_reconstruction(write(nothing)))
    rows = [json.loads(line) for line in (folder / "reconstruction.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert all("all zero" in row["error"] and row["psnr"] is None for row in rows)
    assert (folder / "leakage.png").is_file()


# --- which model is attacked ------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    (tmp_path / "small.yaml").write_text(
        "data: {name: digits}\nmodel: {name: mlp, hidden: [8]}\n"
        "training: {learning_rate: 0.1, schedule: inverse_sqrt}\n"
        "simulation: {engine: inprocess, num_clients: 4, num_rounds: 2}\noutput: {plots: false}\n"
    )
    return engine.run(load_config("small.yaml"))


def of_run(write, folder, *more):
    lines = STUDY.splitlines()
    return write(text="\n".join([lines[0], f"run: {folder.path}", *more, *lines[6:], ""]))


def test_the_model_of_a_run_after_any_round(write, run):
    models = {}
    for round_, expected in (("round: 0", 1), ("round: 1", 2), ("round: 2", 2), ("", 2)):
        study, cases = bench(of_run(write, run, round_))
        assert study.round == expected  # in which the clients would train next; the schedule ends with the run
        assert study.observation(cases[0]).learning_rate == pytest.approx(0.1 / expected**0.5)
        models[round_] = study.sent
    for a, b in zip(models["round: 0"], get_weights(Resources(load_config("small.yaml")).new_model()), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(models["round: 2"], models[""], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(models["round: 1"], run.load_checkpoint(1)[1]["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(models["round: 0"][0], models["round: 2"][0])


def test_says_what_a_run_does_not_have(write, run):
    for round_ in (7,):
        with pytest.raises(ConfigError, match=r"study.reconstruct.yaml:3: round: .*there are: 1, 2"):
            run_reconstruction(load_reconstruction(of_run(write, run, f"round: {round_}")))
    (run.path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"study.reconstruct.yaml:2: run: .*no final model yet.*0, 1, 2"):
        run_reconstruction(load_reconstruction(of_run(write, run)))


# --- messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sead: 3", "1: sead: no such key. Did you mean 'seed'?"),
        ("{name: digits}", "{name: digitz}", "3: data.name: no data"),
        ("learning_rate: 0.1", "learning_rate: 0.0", "5: training.learning_rate: must be more than 0.0; got 0.0."),
        ("clients: [1, 3]", "clients: [1, 5]", "7: clients[1]: must be less than num_clients, 5; got 5."),
        ("images: 2", "images: 0", "8: images: must be at least 1; got 0. For example: images: 1"),
        (
            "max_iterations: 2",
            "max_iteration: 2",
            "10: attack.max_iteration: no such key. Did you mean 'max_iterations'?",
        ),
        ("max_iterations: 2", "seed: 2", "10: attack.seed: no such key."),
        (
            "invert_gradients",
            "inverting",
            "10: attack.name: no inversion 'inverting'. Did you mean 'invert_gradients'?",
        ),
        (
            "unchanged",
            "unchanging",
            "12: through[0].name: no change of an update 'unchanging'. Did you mean 'unchanged'?",
        ),
        (
            "[0.5, 0.1]",
            "[0.5, 0.0]",
            "13: through[1].max_norm[1]: must be more than 0.0; got 0.0. For example: max_norm: [1.0, 0.1]",
        ),
        ("[0.5, 0.1]", "[]", "13: through[1].max_norm: max_norm must hold at least one value"),
        ("[0.5, 0.1]", "[0.5, 0.5]", "13: through[1]: norm_clipping 0.5 stands there twice."),
        (
            "norm_clipping, max_norm: [0.5, 0.1]",
            "averaging, num_clients: [6]",
            "13: through[1].num_clients: must be at most",
        ),
        ("images: 2", "images: 2\nround: 1", "9: round: goes with run"),
        ("images: 2", "images: 2\nrun: runs/a", "2: experiment: give either experiment or run."),
        ("results", "''", "14: output.folder: must be a text that is not empty"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_line(write, old, new, message):
    with pytest.raises(ConfigError) as caught:
        load_reconstruction(write((old, new)))
    assert str(caught.value).startswith(f"study.reconstruct.yaml:{message}")


def test_a_study_without_a_subject_and_other_late_messages(write):
    lines = STUDY.splitlines(keepends=True)
    with pytest.raises(ConfigError, match=r"study.reconstruct.yaml:1: experiment: give either"):
        load_reconstruction(write(text="".join([lines[0], *lines[6:]])))
    with pytest.raises(ConfigError, match=r"study.reconstruct.yaml:8: images: .*client \d has 2\d\d"):
        run_reconstruction(load_reconstruction(write(("images: 2", "images: 200"))))
    with pytest.raises(ConfigError, match=r"--set attack.max_iterations=0: attack.max_iterations: must be at least 1"):
        load_reconstruction(write(), ["attack.max_iterations=0"])


def test_overrides_reach_the_experiment(write):
    study = load_reconstruction(write(), ["experiment.training.learning_rate=0.5", "images=1"])
    assert study.config.training.learning_rate == 0.5
    assert study.images == 1
    with pytest.raises(ConfigError, match=r"--set experiment.training.learning_rate=-1: training.learning_rate: must"):
        load_reconstruction(write(), ["experiment.training.learning_rate=-1"])
    named = load_reconstruction(write(text="experiment: quickstart\nclients: [0]\n"))
    assert named.config.model.name == load_config(packaged_experiments()["quickstart"]).model.name


# --- what comes with the package --------------------------------------------------------------------------------


def test_packaged_studies_load():
    packaged = packaged_experiments(".reconstruct")
    assert {"reconstruction/quick", "reconstruction/leakage"} <= set(packaged)
    for name in packaged:
        study = load_reconstruction(resolve_experiment(name, ".reconstruct"))
        assert study.name == name.rpartition("/")[2]
        assert {entry.name for entry in study.through} >= {"unchanged", "norm_clipping", "top_k", "weak_dp", "soteria"}
    assert not any("reconstruct" in name for name in packaged_experiments())


def test_the_command_prints_the_table(write, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr("sys.argv", ["flsec", "reconstruct", *words])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, capsys.readouterr()

    file = write(("clients: [1, 3]", "clients: [1]"), ("batches: 2", "batches: 1"))
    code, output = command(file)
    assert code == 0
    assert "norm_clipping max_norm 0.5" in output.out
    assert "results/study" in output.out
    code, output = command(file, "--set", "imges=1")
    assert code == 2
    assert "Did you mean 'images'?" in output.err
