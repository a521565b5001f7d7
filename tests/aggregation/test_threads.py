import threading

import pytest
import torch

from flsec.aggregation import _threads, cross_round_similarities, robust_learning_rate
from flsec.aggregation._threads import each_block

CPU = torch.device("cpu")


def use_three(monkeypatch):
    monkeypatch.setattr(_threads, "_ELEMENTS_PER_THREAD", 1)
    monkeypatch.setattr(_threads, "_FEW", 20)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@pytest.mark.parametrize("d", [0, 1, 2, 5, 100])
def test_every_column_is_in_one_block_and_results_are_summed(monkeypatch, d):
    use_three(monkeypatch)
    values = torch.arange(4.0 * d, requires_grad=True).reshape(4, d)
    seen, names = [], set()

    def work(columns):
        seen.extend(range(columns.start, columns.stop))
        names.add(threading.current_thread().name)
        part = values[:, columns].sum(dim=1)
        assert not part.requires_grad
        assert columns.stop - columns.start <= 5
        return part

    total = each_block(work, 4, d, CPU)
    assert sorted(seen) == list(range(d))
    assert torch.equal(total, values.detach().sum(dim=1))
    assert threading.main_thread().name not in names or d < 2


def test_threads_and_blocks_change_nothing_but_rounding(monkeypatch):
    u = torch.randn(7, 91, generator=torch.Generator().manual_seed(0))
    u[2, ::5] = torch.nan
    votes, cosines = robust_learning_rate(u, 3), cross_round_similarities(u, u.flip(0))
    use_three(monkeypatch)
    torch.testing.assert_close(robust_learning_rate(u, 3), votes, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(cross_round_similarities(u, u.flip(0)), cosines, rtol=1e-12, atol=1e-12)
