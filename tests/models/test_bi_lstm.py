import pytest
import torch

from flsec.errors import ConfigError
from flsec.models import BiLSTM


def count(vocabulary: int, **params) -> int:
    model = BiLSTM((80,), vocabulary, vocab_size=vocabulary, pad=0, **params)
    return sum(p.numel() for p in model.parameters())


def lstm(inputs: int, hidden: int = 256, biases: int = 2, peepholes: int = 0) -> int:
    return 4 * hidden * (inputs + hidden + biases) + peepholes * hidden


def test_parameter_counts_by_hand() -> None:
    assert count(90, bidirectional=False) == 8 * 90 + lstm(8) + lstm(256) + 257 * 90 == 822_570
    assert count(90) == 8 * 90 + 2 * (lstm(8) + lstm(512)) + 513 * 90 == 2_168_618


def test_the_papers_count_is_one_of_another_lstm() -> None:
    of_paper = 8 * 258 + lstm(8, biases=1, peepholes=3) + lstm(256, biases=1, peepholes=3) + 257 * 258
    assert of_paper == 866_578


@pytest.mark.parametrize("bidirectional", [True, False])
def test_judges_by_the_last_states_of_what_was_read(bidirectional: bool) -> None:
    torch.manual_seed(0)
    model = BiLSTM((6,), 3, vocab_size=9, pad=0, hidden=5, bidirectional=bidirectional).double()
    text = [4, 0, 7, 2]
    _, (last, _) = model.recurrent(model.embedding(torch.tensor([text])))
    states = [last[-2, 0], last[-1, 0]] if bidirectional else [last[-1, 0]]
    by_hand = torch.cat(states) @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(torch.tensor([[*text, 0, 0]]))[0], by_hand)


def test_all_positions_do_not_see_what_follows() -> None:
    torch.manual_seed(0)
    model = BiLSTM((6,), 9, vocab_size=9, pad=0, hidden=5, bidirectional=False, positions="all").double()
    x = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 8, 8, 8]])
    logits = model(x)
    assert logits.shape == (2, 6, 9)
    torch.testing.assert_close(logits[0, :3], logits[1, :3])
    assert not torch.allclose(logits[0, 3:], logits[1, 3:])
    last = BiLSTM((6,), 9, vocab_size=9, pad=0, hidden=5, bidirectional=False).double()
    last.load_state_dict(model.state_dict())
    torch.testing.assert_close(last(x), logits[:, -1])


def test_both_ways_at_all_positions_would_be_copying() -> None:
    with pytest.raises(ConfigError, match=r"would see the token that it is to predict\. Set bidirectional: false"):
        BiLSTM((6,), 9, vocab_size=9, pad=0, positions="all")
