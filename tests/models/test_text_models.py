"""What every model of texts promises; the registry is the list."""

import copy
import pickle
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flsec.errors import ConfigError
from flsec.models import MODELS, build_model
from flsec.models._transformers import TransformerModel
from flsec.registry import yaml_name
from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.tasks import TASKS
from flsec.training import Training, evaluate, get_weights, logits_of, set_weights, train, weight_names
from tests.support import texts
from tests.support.texts import LENGTH, PAD, TEXT_MODELS, VOCABULARY

# What a model needs to be quick here. A new one is taken as it is.
SMALL = {
    "bi_lstm": {"hidden": 16},
    "causal_model": {"hidden_size": 16},
    "lstm": {"hidden": 16},
    "sequence_classifier": {"hidden_size": 16},
}
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")


def marks_of(name: str):
    return [needs_transformers] if issubclass(MODELS.get(name), TransformerModel) else []


each_model = pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in TEXT_MODELS])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tiny matrices: starting threads costs more than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def writes(name: str) -> bool:
    """Whether it predicts tokens, and is told so by its labels."""
    return "text_classification" not in MODELS.get(name).tasks


def build(name: str, seed: int = 1, **params):
    classes = VOCABULARY if writes(name) else 3
    return build_model(
        name, (LENGTH,), classes, seed, vocab_size=VOCABULARY, pad=PAD, **{**SMALL.get(name, {}), **params}
    )


def batch(n: int = 6, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(texts.rows(n, seed))


def test_the_registry_holds_them() -> None:
    assert {"bi_lstm", "causal_model", "embedding_classifier", "lstm", "sequence_classifier"} <= set(TEXT_MODELS)


@each_model
def test_names_tasks_that_there_are_and_fits_one_of_them(name: str) -> None:
    tasks = MODELS.get(name).tasks
    assert set(tasks) <= set(TASKS.names())
    model = build(name).eval()
    model_fits = []
    for task in tasks:
        for params in ({}, {"positions": "all"}) if task == "next_token" else ({},):
            try:
                TASKS.build(task, params).check_model(model, batch(2), VOCABULARY if writes(name) else 3)
            except ConfigError:
                continue
            model_fits.append(task)
    assert set(model_fits) == set(tasks)


@each_model
def test_gives_finite_logits_in_float32(name: str) -> None:
    logits = build(name)(batch())
    assert logits.shape in ((6, 3), (6, VOCABULARY), (6, LENGTH, VOCABULARY))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@each_model
def test_judges_each_text_by_itself_however_far_it_is_filled_up(name: str) -> None:
    model, x = build(name).eval(), batch()
    with torch.no_grad():
        together = model(x)
        for row, text in zip(together, x, strict=True):
            alone = text[text != PAD]
            wanted = row[: len(alone)] if row.ndim == 2 else row
            torch.testing.assert_close(model(alone[None])[0], wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1])


@each_model
def test_a_text_of_nothing_is_judged_too(name: str) -> None:
    assert build(name).eval()(torch.full((2, LENGTH), PAD)).isfinite().all()


@each_model
def test_every_parameter_receives_a_gradient(name: str) -> None:
    model = build(name).eval()
    logits = model(batch(16))
    (logits.log_softmax(-1) * torch.linspace(-1, 1, logits.shape[-1]).cos()).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@each_model
def test_same_seed_same_weights_whatever_was_drawn_before(name: str) -> None:
    before = torch.get_rng_state()
    first = build(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(17)
    assert all(map(np.array_equal, get_weights(first), get_weights(build(name, seed=5))))
    assert not all(map(np.array_equal, get_weights(first), get_weights(build(name, seed=6))))


@each_model
def test_a_copy_trains_apart_and_a_pickle_is_the_same_model(name: str) -> None:
    model, x = build(name), batch()
    before = get_weights(model)
    copied, stored = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert type(copied) is type(model)
    assert weight_names(copied) == weight_names(stored) == weight_names(model)
    for other in (copied, stored):
        assert torch.equal(other.eval()(x), copy.deepcopy(model).eval()(x))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1.0)
    assert all(map(np.array_equal, get_weights(model), before))
    set_weights(copied, before)
    assert torch.equal(copied.eval()(x), model.eval()(x))


@each_model
@pytest.mark.parametrize(
    ("shape", "classes", "params", "words"),
    [
        ((3, 8, 8), 3, {}, r"takes sequences of tokens, input_shape \(length,\); got \(3, 8, 8\)"),
        ((), 3, {}, "input_shape"),
        ((0,), 3, {}, "input_shape"),
        ((8,), 1, {}, "num_classes must be greater than or equal to 2; got 1"),
        ((8,), 3, {"vocab_size": 1}, "vocab_size"),
        ((8,), 3, {"pad": -1}, "pad"),
        ((8,), 3, {"pad": 3, "vocab_size": 3}, "pad must be one of the tokens 0 to 2; got 3"),
    ],
)
def test_refuses_what_is_no_task(name: str, shape, classes, params, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        MODELS.get(name)(shape, classes, **{"vocab_size": 3, "pad": 0, **params})
    assert repr(yaml_name(MODELS.get(name))) in str(caught.value)


# --- learning, alone and together ------------------------------------------------------------------------------------

LEARNING = [
    ("embedding_classifier", {}, "by_stride", {"learning_rate": 1.0}),
    ("bi_lstm", {"hidden": 32}, "by_stride", {"learning_rate": 0.5}),
    ("sequence_classifier", {"hidden_size": 32}, "by_stride", {"learning_rate": 0.005, "optimizer": "adam"}),
    ("lstm", {"hidden": 32, "dropout": 0.0}, "counting", {"learning_rate": 2.0}),
    ("bi_lstm", {"hidden": 32, "bidirectional": False, "positions": "all"}, "counting", {"learning_rate": 1.0}),
    ("causal_model", {"hidden_size": 32}, "counting", {"learning_rate": 0.005, "optimizer": "adam"}),
]


@pytest.mark.parametrize(
    ("name", "params", "data", "settings"),
    [pytest.param(*row, marks=marks_of(row[0])) for row in LEARNING],
)
def test_learns(name: str, params, data: str, settings) -> None:
    source = getattr(texts, data)()
    model = build_model(name, (LENGTH,), source.num_classes, 1, vocabulary=source.vocabulary, **params)
    training = Training(batch_size=16, epochs=12, **settings)
    before = evaluate(model, *source.test.tensors(), task=source.task)
    random = torch.Generator().manual_seed(0)
    train(model, *source.train.tensors(), training, round=1, generator=random, task=source.task)
    after = evaluate(model, *source.test.tensors(), task=source.task)
    assert after.loss < 0.8 * before.loss
    assert after.accuracy > before.accuracy


def test_texts_are_judged_in_portions_that_fit_in_memory() -> None:
    source, sizes = texts.counting(), []
    model = build("lstm")
    model.register_forward_hook(lambda module, args, logits: sizes.append(len(args[0])))
    x, y = (part.repeat(7, 1) for part in source.train.tensors())
    whole = evaluate(model, x, y, task=source.task)
    assert sizes == [2048 // LENGTH] * 2 + [len(x) - 2 * 2048 // LENGTH]
    assert evaluate(model, x, y, len(x), task=source.task).loss == pytest.approx(whole.loss)
    sizes.clear()
    assert len(logits_of(model, x.repeat(1, 40))) == len(x)
    assert max(sizes) == 16_384 // (40 * LENGTH)


EXPERIMENT = """
name: texts
seed: 5
data: {{name: "tests.support.texts:{data}", partition: {{name: iid}}}}
model: {model}
training: {{learning_rate: 0.5, batch_size: 8, steps: 2}}
defenses: [{{name: multi_krum, num_byzantine: 1}}]
attacks: [{{name: sign_flipping, scale: 10.0}}]
adversaries: {{count: 1}}
simulation: {{engine: inprocess, num_clients: 6, num_rounds: 2}}
"""


@pytest.mark.parametrize(
    ("data", "model", "dtypes"),
    [
        ("by_stride", "{name: embedding_classifier}", {torch.float32}),
        ("counting", "{name: lstm, hidden: 8}", {torch.float32}),
        pytest.param(
            "by_stride",
            "{name: sequence_classifier, hidden_size: 16, dtype: bfloat16}",
            {torch.bfloat16},
            marks=needs_transformers,
        ),
        pytest.param(
            "by_stride",
            "{name: sequence_classifier, hidden_size: 16, dtype: bfloat16, lora_rank: 2}",
            {torch.float32, torch.bfloat16},  # LoRA's, and the head's
            marks=[needs_transformers, needs_peft],
        ),
        pytest.param(
            "instructed",
            "{name: causal_model, hidden_size: 16, lora_rank: 2}",
            {torch.float32},
            marks=[needs_transformers, needs_peft],
        ),
    ],
)
def test_rounds_of_a_defense_against_an_attack_move_what_travels(tmp_path, data: str, model: str, dtypes) -> None:
    file = tmp_path / "texts.yaml"
    file.write_text(EXPERIMENT.format(data=data, model=model))
    folder = engine.run(load_config(file, [f"output.folder={tmp_path / 'runs'}"]))
    rounds = folder.rounds()
    assert all(np.isfinite(entry["loss"]) for entry in rounds)
    weights = load_file(folder.path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == dtypes
    assert rounds[0]["loss"] != rounds[-1]["loss"]
