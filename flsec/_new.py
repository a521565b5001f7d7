"""The files of a new defense or attack, runnable at once.

    python -m flsec._new defense MyRule
    python -m flsec._new attack MyAttack

Each writes three: the mathematics, the Flower side, and a test; then the exports (see ``flsec._exports``). The formula
in them works but is only there to be replaced.
"""

import sys
from pathlib import Path

from flsec import _exports
from flsec.registry import snake_case

__all__ = ["main", "write"]

RULE = '''"""NAME: what it is, in one line."""

import torch
from torch import Tensor

from flsec.aggregation._columns import check_matrix
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["SNAKE"]


def SNAKE(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return the mean of every coordinate without its f smallest and f largest values (replace this by your rule).

    Args:
        updates: (n, d), float32 or float64. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the hostile rows.

    Returns:
        (d,): dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no float matrix, f is no whole number, f < 0, or 2 f >= n.

    Example:
        >>> updates = torch.tensor([[-1e30], [1.0], [2.0], [6.0], [float("nan")]])
        >>> SNAKE(updates, num_byzantine=1)
        tensor([3.])

    Source: the paper, its section.
    """
    n, _ = check_matrix(updates, rule="SNAKE")
    if num_byzantine % 1 != 0 or num_byzantine < 0 or 2 * num_byzantine >= n:
        raise ConfigError(
            "SNAKE needs a whole number 0 <= num_byzantine < n / 2; got "
            f"num_byzantine={num_byzantine!r}, n={n}. Sample more clients per round or lower num_byzantine."
        )
    f = int(num_byzantine)
    ordered = updates.detach().sort(dim=0).values  # NaN comes last, above every number
    return ordered[f : n - f].mean(dim=0, dtype=torch.float64).to(updates.dtype)
'''

STRATEGY = '''"""NAME as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.SNAKE import SNAKE
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["NAME"]


class NAME(RobustStrategy):
    """Aggregate by the mean of each coordinate without its f largest and smallest values (replace this).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n > 2 f usable replies a round.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = NAME(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.5000])

    Source: the paper, its section.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the aggregate of the updates."""
        return SNAKE(cohort.updates, self.faults(cohort))
'''

RULE_TEST = """import numpy as np
import pytest
import torch

from flsec.aggregation.SNAKE import SNAKE
from flsec.errors import ConfigError


def draw(seed, n, d):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [5, 8, 21])
def test_agrees_with_a_slow_and_obvious_version_in_float64(n):
    u = draw(n, n, 7)
    columns = [sorted(column)[2:-2] for column in u.T.double().tolist()]
    expected = [sum(column) / len(column) for column in columns]
    np.testing.assert_allclose(SNAKE(u, 2), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [1e30, -1e30, torch.inf, -torch.inf, torch.nan])
def test_hostile_rows_never_leave_the_honest_range(value):
    honest = draw(0, 9, 20)
    everyone = torch.cat([torch.full((3, 20), value), honest])
    result = SNAKE(everyone, 3)
    assert bool(((honest.amin(dim=0) <= result) & (result <= honest.amax(dim=0))).all())


@pytest.mark.parametrize("num_byzantine", [-1, 0.5, 3])
def test_refuses_what_it_cannot_keep(num_byzantine):
    with pytest.raises(ConfigError, match="num_byzantine"):
        SNAKE(draw(1, 6, 4), num_byzantine)
"""

ATTACK = '''"""NAME: what it is, in one line."""

from collections.abc import Sequence

from flsec.attacks._upload import Array, upload
from flsec.parameters import Positive, check_parameters

__all__ = ["SNAKE"]


def SNAKE(
    global_params: Sequence[Array],
    local_params: Sequence[Array],
    *,
    scale: Positive = 1.0,
) -> list[Array]:
    """Return w_g - scale * (w_l - w_g), the honest update reversed (replace this by your attack).

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: w_l, the honest upload, same shapes. Not modified.
        scale: length of the upload's update, in honest ones.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ, or ``scale`` is not positive.

    Example:
        >>> import numpy as np
        >>> SNAKE([np.array([1.0, 2.0])], [np.array([1.5, 1.0])], scale=4.0)
        [array([-1.,  6.])]

    Source: the paper, its section.
    """
    check_parameters(SNAKE, {"scale": scale}, name="SNAKE")
    return upload(global_params, local_params, lambda w_g, w_l: w_g - scale * (w_l - w_g))
'''

DECORATOR = '''"""NAME on a client."""

from typing import Any

from flsec.attacks.SNAKE import SNAKE
from flsec.client_apps.base import Attack, AttackContext, NDArrays
from flsec.parameters import Positive

__all__ = ["NAME"]


class NAME(Attack):
    """Upload the honest update times -scale (replace this by your attack).

    Args:
        scale: length of the upload's update, in honest ones.
        options: see ``Attack``.

    Raises:
        ConfigError: ``scale`` is not positive; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps import AttackContext
        >>> attack = NAME(scale=4.0)
        >>> attack.poison_update([np.array([1.0])], [np.array([1.5])], AttackContext(round=1, client_id=0))
        [array([-1.])]

    Source: the paper, its section.
    """

    def __init__(self, *, scale: Positive = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return what is uploaded in place of ``local``."""
        return SNAKE(global_, local, scale=self.scale)
'''

ATTACK_TEST = """import numpy as np
import pytest

from flsec.attacks.SNAKE import SNAKE
from flsec.errors import ConfigError


def models(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(3, 2)), rng.normal(size=4)], [rng.normal(size=(3, 2)), rng.normal(size=4)]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_follows_the_formula_and_leaves_its_input_alone(scale):
    global_params, local_params = models(0)
    before = [array.copy() for array in (*global_params, *local_params)]
    uploaded = SNAKE(global_params, local_params, scale=scale)
    for w_g, w_l, sent in zip(global_params, local_params, uploaded, strict=True):
        np.testing.assert_allclose(sent - w_g, -scale * (w_l - w_g), rtol=1e-9, atol=1e-9)
    for array, kept in zip((*global_params, *local_params), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_refuses_what_makes_no_sense():
    with pytest.raises(ConfigError, match="scale"):
        SNAKE(*models(0), scale=-1.0)
"""

FILES = {
    "defense": {
        "flsec/aggregation/SNAKE.py": RULE,
        "flsec/strategies/SNAKE.py": STRATEGY,
        "tests/aggregation/test_SNAKE.py": RULE_TEST,
    },
    "attack": {
        "flsec/attacks/SNAKE.py": ATTACK,
        "flsec/client_apps/SNAKE.py": DECORATOR,
        "tests/attacks/test_SNAKE.py": ATTACK_TEST,
    },
}


def write(kind: str, name: str, checkout: Path) -> list[Path]:
    """Write the files of a new ``kind`` called ``name``, and the exports; return the files' paths.

    Raises:
        SystemExit: the name is no class name, a file of that name exists, or the exports have such a name already.
    """
    if not name.isidentifier() or not name[0].isupper() or "_" in name:
        raise SystemExit(f"{name!r} is no class name; write it like MyRule or FLTrust.")
    snake = snake_case(name)
    texts = {
        checkout / path.replace("SNAKE", snake): text.replace("SNAKE", snake).replace("NAME", name)
        for path, text in FILES[kind].items()
    }
    if there := [str(path.relative_to(checkout)) for path in texts if path.exists()]:
        raise SystemExit(f"{there[0]} exists; choose another name, or change that file.")
    for path, text in texts.items():
        path.write_text(text)
    try:
        exports = _exports.outdated(checkout / "flsec")
    except SystemExit:
        for path in texts:
            path.unlink()
        raise
    for path, text in exports.items():
        path.write_text(text)
    return list(texts)


def main(arguments: list[str]) -> None:
    """Write the files that the command line asks for, and say what to do next."""
    if len(arguments) != 2 or arguments[0] not in FILES:
        raise SystemExit("usage: python -m flsec._new defense|attack MyName")
    kind, name = arguments
    checkout = _exports.ROOT.parent
    for path in write(kind, name, checkout):
        print(path.relative_to(checkout))
    snake = snake_case(name)
    print(f"Replace formula, docstrings and test by yours, then: make check && pytest -k {snake}. No list to keep.")


if __name__ == "__main__":
    main(sys.argv[1:])
