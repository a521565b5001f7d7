import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import EmbeddingClassifier


def test_is_the_mean_of_the_vectors_and_one_linear_layer() -> None:
    torch.manual_seed(0)
    model = EmbeddingClassifier((5,), 3, vocab_size=7, pad=0, dimension=4).double()
    vectors, weight, bias = model.parameters()
    x = torch.tensor([[1, 2, 3, 0, 0], [0, 4, 0, 5, 0], [6, 6, 6, 6, 6], [0, 0, 0, 0, 0]])
    texts = [[1, 2, 3], [4, 0, 5], [6], [0]]  # one between two texts counts, a row of nothing is its first token
    by_hand = torch.stack([vectors[text].mean(dim=0) @ weight.T + bias for text in texts])
    torch.testing.assert_close(model(x), by_hand)


def test_parameter_count_by_hand() -> None:
    model = EmbeddingClassifier((64,), 20, vocab_size=10_000, pad=0)
    assert sum(p.numel() for p in model.parameters()) == 10_000 * 64 + 64 * 20 + 20


def test_refuses_a_dimension_of_nothing() -> None:
    with pytest.raises(ConfigError, match="dimension"):
        EmbeddingClassifier((5,), 3, vocab_size=7, pad=0, dimension=0)
