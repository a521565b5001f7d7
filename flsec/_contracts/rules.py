"""The checks of a pure aggregation rule."""

from collections.abc import Callable

import torch
from torch import Tensor

from flsec.errors import ConfigError


class RuleBattery:
    def __init__(
        self,
        rule: Callable[[Tensor], Tensor],
        shift: bool,
        scale: bool,
        fewest: int,
        byzantine: int,
        bound: float,
        order: bool = True,
    ):
        self._rule, self._order, self._shift, self._scale, self._bound = rule, order, shift, scale, bound
        self._fewest, self._f = fewest, byzantine
        self._n, self._d = max(fewest, 2 * byzantine + 3) + 4, 37

    def _updates(self, seed: int = 0, n: int | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n or self._n, self._d, generator=generator, dtype=dtype)

    def returns_one_row_of_the_same_kind(self) -> None:
        for dtype in (torch.float32, torch.float64):
            result = self._rule(self._updates(dtype=dtype))
            assert result.shape == (self._d,), f"shape {tuple(result.shape)} for d = {self._d}"
            assert result.dtype == dtype, f"{result.dtype} for {dtype}"
            assert bool(result.isfinite().all()), "not finite on honest rows"

    def does_not_modify_its_input(self) -> None:
        updates = self._updates()
        before = updates.clone()
        result = self._rule(updates)
        assert torch.equal(updates, before), "the updates were changed"
        result.add_(1.0)
        assert torch.equal(updates, before), "the result shares memory with the updates"

    def is_deterministic(self) -> None:
        updates, state = self._updates(), torch.get_rng_state()
        assert torch.equal(self._rule(updates), self._rule(updates)), "two calls give two results"
        assert torch.equal(torch.get_rng_state(), state), "torch's global random state was used"

    def ignores_the_order_of_rows(self) -> None:
        for seed in range(5 if self._order else 0):
            updates = self._updates(seed)
            order = torch.randperm(self._n, generator=torch.Generator().manual_seed(seed))
            _assert_close(self._rule(updates[order]), self._rule(updates), 1e-6)

    def follows_a_shift(self) -> None:
        if self._shift:
            updates, shift = self._updates(), 100.0 * self._updates(1, n=1)[0]
            _assert_close(self._rule(updates + shift), self._rule(updates) + shift, 1e-6)

    def follows_a_scale(self) -> None:
        if self._scale:
            for scale in (1e-3, 7.0, 1e3):
                updates = self._updates()
                _assert_close(self._rule(scale * updates) / scale, self._rule(updates), 1e-6)

    def agrees_with_rows_that_agree(self) -> None:
        if self._shift:
            row = self._updates(n=1)
            _assert_close(self._rule(row.repeat(self._n, 1)), row[0], 1e-6)

    def agrees_in_float32_and_float64(self) -> None:
        for seed in range(3):
            updates = self._updates(seed, dtype=torch.float32)
            _assert_close(self._rule(updates).double(), self._rule(updates.double()), 1e-5)
            if self._shift:  # nearby rows far from zero: squares by expansion cancel
                near = 50.0 + 1e-4 * updates
                result, expected = self._rule(near).double(), self._rule(near.double())
                torch.testing.assert_close(result, expected, rtol=0, atol=4 * 50 * 2.0**-24)

    def works_with_the_fewest_clients(self) -> None:
        result = self._rule(self._updates(n=self._fewest))
        assert bool(result.isfinite().all()), f"not finite for n = {self._fewest}"
        if self._fewest > 1:
            self._refuses(self._updates(n=self._fewest - 1), f"n = {self._fewest - 1}")

    def refuses_what_is_no_matrix(self) -> None:
        self._refuses(self._updates()[0], "a vector")
        self._refuses(self._updates()[:0], "no rows")
        self._refuses(self._updates()[None], "three dimensions")

    def _refuses(self, updates: Tensor, what: str) -> None:
        try:
            self._rule(updates)
        except ConfigError:
            return
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} instead of ConfigError") from error
        raise AssertionError(f"{what} is accepted")

    def never_raises_because_of_a_value(self) -> None:
        for value in (torch.nan, torch.inf, -torch.inf, 1e30, torch.finfo(torch.float32).max):
            for dtype in (torch.float32, torch.float64):
                updates = self._updates(dtype=dtype)
                updates[1] = value
                self._rule(updates)

    def withstands_hostile_rows(self) -> None:
        for size in (1e1, 1e4, 1e8, 1e12, 1e30) if self._f else ():
            for seed in range(3):
                direction = self._updates(seed + 10, n=1)
                together = size * direction.expand(self._f, -1)
                signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(self._f)[: self._f, None]
                self._check_displacement(seed, together, f"{self._f} equal rows of size {size:g}")
                self._check_displacement(seed, signs * together, f"{self._f} opposite rows of size {size:g}")

    def withstands_nan_and_infinity(self) -> None:
        for value in (torch.nan, torch.inf, -torch.inf, torch.finfo(torch.float32).max) if self._f else ():
            everywhere = torch.full((self._f, self._d), value, dtype=torch.float64)
            once = self._updates(20, n=self._f)
            once[:, 0] = value
            self._check_displacement(0, everywhere, f"{self._f} rows of {value:g}")
            self._check_displacement(0, once, f"{self._f} rows with one {value:g}")

    def _check_displacement(self, seed: int, hostile: Tensor, what: str) -> None:
        honest = self._updates(seed, n=self._n - len(hostile))
        center = honest.mean(dim=0)
        unit = float((honest - center).norm(dim=1).max())
        order = torch.randperm(self._n, generator=torch.Generator().manual_seed(seed))
        for dtype in (torch.float32, torch.float64):
            result = self._rule(torch.cat([honest, hostile])[order].to(dtype)).double()
            moved = float((result - center).norm()) / unit
            assert moved <= self._bound, f"{what} in {dtype} move the result by {moved:g} of the honest spread"


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
