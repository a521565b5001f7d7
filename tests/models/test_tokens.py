import numpy as np
import pytest
import torch

from flsec.models._tokens import last_token, real_tokens


def by_hand(row: list[int], pad: int) -> list[bool]:
    start, end = 0, len(row)
    while start < end and row[start] == pad:
        start += 1
    while end > start and row[end - 1] == pad:
        end -= 1
    if start == end:
        start, end = 0, 1
    return [start <= place < end for place in range(len(row))]


@pytest.mark.parametrize("pad", [0, 2])
def test_text_is_what_lies_between_the_runs_at_both_ends(pad: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 3, (3000, 7))
    expected = torch.tensor([by_hand(row, pad) for row in tokens.tolist()])
    found = real_tokens(torch.from_numpy(tokens), pad)
    assert torch.equal(found, expected)
    assert found.any(dim=1).all()
    last = [max(place for place, real in enumerate(row) if real) for row in expected.tolist()]
    assert last_token(torch.from_numpy(tokens), pad).tolist() == last


def test_a_token_that_ends_texts_and_fills_up_stays_where_a_text_goes_on() -> None:
    end = 9
    row = torch.tensor([[5, end, 6, end, end, end]])
    assert real_tokens(row, pad=end).tolist() == [[True, True, True, False, False, False]]
