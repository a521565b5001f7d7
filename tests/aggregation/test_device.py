import pytest
import torch

from flsec.aggregation import (
    _columns,
    _device,
    _gram,
    align_ins,
    auror_suspicions,
    bulyan,
    centered_clipping,
    geometric_median,
    krum,
    lasa,
    median,
    multi_krum,
    norm_clipping,
    trimmed_mean,
)
from flsec.aggregation._device import computing_on, device_of_blocks

RULES = {
    "krum": lambda u: krum(u, 2),
    "multi_krum": lambda u: multi_krum(u, 2),
    "bulyan": lambda u: bulyan(u, 2),
    "geometric_median": geometric_median,
    "centered_clipping": lambda u: centered_clipping(u, torch.zeros(u.shape[1]), 5.0),
    "norm_clipping": lambda u: norm_clipping(u, 5.0),
    "median": median,
    "trimmed_mean": lambda u: trimmed_mean(u, 2),
    "align_ins": lambda u: align_ins(u, torch.linspace(-1, 1, u.shape[1])),
    "auror_suspicions": lambda u: auror_suspicions(u, 3.0),
    "lasa": lambda u: lasa(u, [30, 107]),
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for kind in ("cpu", "cuda"):
        monkeypatch.setitem(_gram._BLOCK, kind, 50)
    monkeypatch.setattr(_gram, "_SMALLEST_BLOCK", 50)
    monkeypatch.setattr(_columns, "_BLOCK_ELSEWHERE", 50)


def updates():
    rows = torch.randn(11, 137, generator=torch.Generator().manual_seed(0))
    rows[3, 5], rows[4] = torch.nan, 1e20
    return rows


@pytest.mark.parametrize("rule", RULES)
def test_blocks_sent_to_a_device_give_the_same(rule):
    rows = updates()
    here = RULES[rule](rows)
    with computing_on(torch.device("cpu")):
        there = RULES[rule](rows)
    assert there.device == rows.device
    torch.testing.assert_close(there, here, equal_nan=True)


def test_only_matrices_in_main_memory_are_sent_and_only_meanwhile():
    elsewhere = torch.device("cuda")
    assert device_of_blocks(torch.empty(2, 2)) is None
    with computing_on(elsewhere):
        assert device_of_blocks(torch.empty(2, 2)) == elsewhere
        assert device_of_blocks(torch.empty(2, 2, device="meta")) == torch.device("meta")
        with computing_on(None):
            assert device_of_blocks(torch.empty(2, 2)) is None
    assert device_of_blocks(torch.empty(2, 2)) is None


def test_a_matrix_that_fits_is_sent_once_and_again_when_it_has_changed(monkeypatch):
    sent = []

    def to(self, *args, **kwargs):
        if isinstance(args[0], torch.device) and args[0].type == "meta":
            sent.append(self.shape)
        return torch.empty(self.shape, device="meta")

    device = torch.device("meta")
    rows = torch.zeros(4, 6)
    monkeypatch.setattr(torch.Tensor, "to", to)
    for free, times in ((2 * rows.nbytes, [1, 1, 2]), (2 * rows.nbytes - 1, [0, 0, 0])):
        monkeypatch.setattr(_device, "_free_bytes", lambda _, free=free: free)
        sent.clear()
        rows.zero_()
        with computing_on(device):
            first = _device.kept_on(rows, device)
            assert len(sent) == times[0]
            assert _device.kept_on(rows, device) is first
            assert len(sent) == times[1]
            rows.add_(1)
            _device.kept_on(rows, device)
            assert len(sent) == times[2]
        assert _device.kept_on(rows, device) is rows
