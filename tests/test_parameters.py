"""What is checked without pydantic is what pydantic accepts, and nothing more."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter, ValidationError

from flsec.attacks.adversaries import Adversaries
from flsec.parameters import _fits_plainly

PLAIN = [int, float, bool, str, Literal["a", "b"], Annotated[int, Ge(0)], Annotated[float, Gt(0), Le(1)]]
HINTS: list[Any] = [
    *PLAIN,
    *(hint | None for hint in PLAIN),
    *(Sequence[hint] for hint in PLAIN),  # type: ignore[valid-type]
    Annotated[float, Lt(1)],
    Annotated[int, MultipleOf(2)],
    Annotated[int, Ge(0)] | str | None,
    Sequence[Sequence[Annotated[int, Ge(0)] | str]],
    Adversaries | None,
    Callable[[int], int] | None,
    dict[str, int],
    tuple[int, int],
]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.sampled_from([float("nan"), float("inf"), "a"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2) | st.tuples(inner, inner), max_leaves=4)


def pydantic_accepts(hint: Any, value: Any) -> bool:
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True)).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("hint", HINTS, ids=str)
@given(value=values)
@example(value=Adversaries(num_clients=2, ids=[0]))
@example(value={"a": 1})
@example(value=len)
def test_what_fits_plainly_is_accepted_by_pydantic(hint: Any, value: Any) -> None:
    assert not _fits_plainly(hint, value) or pydantic_accepts(hint, value)


@pytest.mark.parametrize("hint", PLAIN, ids=str)
@given(value=values)
def test_and_a_plain_type_is_judged_alike(hint: Any, value: Any) -> None:
    assert _fits_plainly(hint, value) == pydantic_accepts(hint, value)
