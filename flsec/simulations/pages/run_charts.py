"""How the charts of a run are drawn: specifications, which all runs of a page share. Their data is called ``rows``."""

import functools
from typing import Any

from flsec.simulations.figure_style import PALETTE
from flsec.simulations.pages.page import altair
from flsec.simulations.studies.clients_by_rounds import OUTCOMES

__all__ = ["grid_spec", "penalties_spec", "scores_spec", "time_spec", "weights_spec"]

Spec = dict[str, Any]
_TOLD = {
    "client": "client",
    "round": "round",
    "outcome": "outcome",
    "defense": "defense",
    "told_score": "score",
    "threshold": "threshold",
    "told_weight": "weight",
    "why": "reason",
}
_TEXTS = {  # what a tooltip says where there may be no number
    "told_score": "datum.score === null ? '' : '' + datum.score",
    "told_weight": "datum.weight === null ? '' : '' + datum.weight",
    "threshold": "(datum.low === null ? '' : 'at least ' + datum.low + ' ')"
    " + (datum.high === null ? '' : 'at most ' + datum.high)",
}


@functools.cache
def grid_spec(outcomes: tuple[str, ...], height: int, cross: float) -> Spec:
    """Draw clients by rounds, coloured by outcome, a cross on who attacks.

    Args:
        outcomes: those of ``OUTCOMES`` that are there.
        height: pixels.
        cross: its area.
    """
    alt = altair()
    scale = alt.Scale(domain=list(outcomes), range=[OUTCOMES[outcome] for outcome in outcomes])
    base = _clients_by_rounds(alt)
    squares = base.mark_rect(stroke="#ffffff", strokeOpacity=0.25, aria=False)
    crosses = base.mark_point(shape="cross", angle=45, color="#000000", filled=True, aria=False, size=cross)
    attacks = alt.condition("datum.attacks == 1", alt.value(0.85), alt.value(0))
    layers = squares.encode(color=alt.Color("outcome:N", title=None, scale=scale)), crosses.encode(opacity=attacks)
    return _spec(alt.layer(*layers).properties(height=height))


@functools.cache
def weights_spec(height: int) -> Spec:
    """Draw clients by rounds, coloured by weight."""
    alt = altair()
    colour = alt.Color("weight:Q", title="weight", scale=alt.Scale(scheme="viridis"))
    base = _clients_by_rounds(alt).transform_filter("datum.weight !== null")
    return _spec(base.mark_rect(aria=False).encode(color=colour).properties(height=height))


@functools.cache
def scores_spec(title: str, bounds: tuple[str, ...], constant: float | None) -> Spec:
    """Draw each client's score by round, and the thresholds.

    Args:
        title: what the scores are.
        bounds: ``"low"`` and ``"high"``, those that are there.
        constant: up to which the scale is about linear; None: all of it is.
    """
    alt = altair()
    scale = alt.Scale(zero=False, nice=True) if constant is None else alt.Scale(type="symlog", constant=constant)
    base = alt.Chart(alt.NamedData("rows")).transform_filter("datum.score !== null").transform_calculate(**_TEXTS)
    shapes = alt.Scale(domain=["honest", "attacks"], range=["circle", "cross"])
    points = (
        base.transform_calculate(role="datum.attacks == 1 ? 'attacks' : 'honest'")
        .mark_point(size=28, filled=True, opacity=0.8, aria=False)
        .encode(
            x=_rounds(alt),
            y=alt.Y("score:Q", title=title, scale=scale),
            color=_roles(alt),
            shape=alt.Shape("role:N", title=None, scale=shapes),
            tooltip=_tooltip(alt),
        )
    )
    lines = [
        base.transform_filter(f"datum.{bound} !== null")
        .mark_line(interpolate="step", strokeDash=[5, 3], color=PALETTE[6], aria=False)
        .encode(x="round:Q", y=alt.Y(f"mean({bound}):Q", title=title))
        for bound in bounds
    ]
    return _spec(alt.layer(points, *lines).properties(height=260))


@functools.cache
def penalties_spec() -> Spec:
    """Draw the penalty counts of clients by round."""
    alt = altair()
    return _spec(
        alt.Chart(alt.NamedData("rows"))
        .mark_line(point=True, opacity=0.7, aria=False)
        .encode(
            x=_rounds(alt),
            y=alt.Y("penalty:Q", title="penalty count"),
            detail="client:N",
            color=_roles(alt),
            tooltip=["client:N", "round:Q", "penalty:Q", "role:N"],
        )
        .properties(height=220)
    )


@functools.cache
def time_spec(stages: tuple[str, ...]) -> Spec:
    """Draw the seconds of each round, stage upon stage."""
    alt = altair()
    scale = alt.Scale(domain=list(stages), range=list(PALETTE))
    return _spec(
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(aria=False)
        .encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("sum(seconds):Q", title="seconds"),
            color=alt.Color("stage:N", title=None, sort=list(stages), scale=scale),
            tooltip=["round:O", "stage:N", alt.Tooltip("seconds:Q", format=".3s")],
        )
        .properties(height=200)
    )


def _clients_by_rounds(alt: Any) -> Any:
    rank = alt.EncodingSortField("rank", op="min")
    return (
        alt.Chart(alt.NamedData("rows"))
        .transform_calculate(**_TEXTS)
        .encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("client:N", title="client", sort=rank, axis=alt.Axis(labelLimit=70)),
            tooltip=_tooltip(alt),
        )
    )


def _rounds(alt: Any) -> Any:
    return alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1))


def _roles(alt: Any) -> Any:
    return alt.Color("role:N", title=None, scale=alt.Scale(domain=["honest", "attacks"], range=list(PALETTE[:2])))


def _tooltip(alt: Any) -> list[Any]:
    return [alt.Tooltip(field, type="nominal", title=title) for field, title in _TOLD.items()]


def _spec(chart: Any) -> Spec:
    spec: Spec = chart.to_dict()
    return spec
