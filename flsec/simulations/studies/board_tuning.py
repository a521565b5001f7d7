"""The second board: settings chosen by runs with a seed that the board itself does not use."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flsec.errors import ConfigError
from flsec.simulations.studies.board import NO_ATTACK, Board, Cell
from flsec.simulations.studies.board_runs import Line

__all__ = ["candidates", "tuned"]


def candidates(board: Board) -> Board:
    """Return the board of the runs that choose: a row for each combination of the values in ``tuning``.

    The columns are the portfolio's, the seed is ``validation_seed``.

    Raises:
        ConfigError: the board has no ``tuning``.
    """
    rows = {label: entries for name in board.rows for label, entries in _variants(board, name)}
    if not rows:
        raise ConfigError(f"the board {board.name} names nothing to tune. Write tuning: {{norm_clipping: ...}} in it.")
    file = board.file.model_copy(update={"seeds": (board.file.validation_seed,)})
    return Board(board.name, file, rows).chosen(attacks=[NO_ATTACK, *board.file.portfolio])


def tuned(board: Board, run: Callable[[Sequence[Cell]], Sequence[Line]]) -> Board:
    """Return the board with each row's settings chosen among its candidates: the best worst case on one seed.

    One setting for all parts of the board, by the mean over them. The stated settings are kept where the candidates
    cannot be compared.

    Args:
        board: with the stated settings.
        run: finishes cells, and returns their lines.
    """
    tried = candidates(board)
    accuracy: dict[str, list[float]] = {}
    for line in run(list(tried.cells())):
        if line["attack"] != NO_ATTACK and line["accuracy"] is not None:
            accuracy.setdefault(line["defense"], []).append(line["accuracy"])
    rows = dict(board.rows)
    for name in board.rows:
        worst = {label: min(accuracy[label]) for label, _ in _variants(board, name) if label in accuracy}
        if worst:
            rows[name] = tried.rows[max(worst, key=lambda label: worst[label])]
    return Board(f"{board.name}-tuned", board.file, rows)


def _variants(board: Board, name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the label and the entries of each candidate of a row."""
    values = board.file.tuning.get(name, {})
    for chosen in itertools.product(*values.values()) if values else ():
        settings = dict(zip(values, chosen, strict=True))
        label = f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})"
        yield label, [{**board.rows[name][0], **settings}]
