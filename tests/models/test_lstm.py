import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import LSTM, build_model


def small(**params) -> LSTM:
    torch.manual_seed(0)
    return LSTM((6,), 9, **{"vocab_size": 9, "pad": 0, "hidden": 5, **params}).double()


def test_parameter_count_by_hand() -> None:
    model = LSTM((64,), 50_000, vocab_size=50_000, pad=0)
    assert sum(p.numel() for p in model.parameters()) == 50_000 * 200 + 2 * 4 * 200 * 402 + 50_000 == 10_693_200


def test_the_words_vectors_are_the_output_layer() -> None:
    model, x = small().eval(), torch.tensor([[1, 2, 3, 4, 5, 6]])
    states, _ = model.recurrent(model.embedding(x))
    torch.testing.assert_close(model(x), states @ model.embedding.weight.T + model.output_bias)
    assert float(model.embedding.weight.detach().abs().max()) <= 0.1
    assert not model.output_bias.any()
    assert len(model.state_dict()) == 1 + 8 + 1  # stored, and sent, once


def test_the_last_position_is_that_of_the_last_word() -> None:
    every, last = small().eval(), small(positions="last").eval()
    x = torch.tensor([[1, 2, 0, 4, 0, 0], [0, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])
    rows = torch.arange(3)
    torch.testing.assert_close(last(x), every(x)[rows, torch.tensor([3, 5, 0])])


def test_drops_values_in_training_only() -> None:
    model, x = build_model("lstm", (6,), 9, 1, vocab_size=9, pad=0), torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    one = small(layers=1, dropout=0.5)  # torch warns of dropout between the layers of one
    assert one(x).isfinite().all()


def test_refuses_labels_that_are_no_tokens() -> None:
    with pytest.raises(ConfigError, match=r"num_classes must be vocab_size=9; got 4\. For labels, use"):
        LSTM((6,), 4, vocab_size=9, pad=0)
    with pytest.raises(ConfigError, match="dropout"):
        small(dropout=1.0)
