"""Paths that stand in files stay in their folders; pickles are read as numbers, whatever they claim."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flsec._paths import leads_out
from flsec.data import load_dataset
from flsec.data.datasets._own import find_path
from flsec.data.datasets._plain_pickle import read_plain_pickle
from flsec.errors import ConfigError

parts = st.lists(st.sampled_from(["..", ".", "", "a", "b", "...", "a..b"]), min_size=1, max_size=6)


@given(parts, st.sampled_from(["/", "\\"]))
def test_a_path_leads_out_if_any_beginning_of_it_does(pieces: list[str], separator: str) -> None:
    beginnings = [os.path.normpath("/".join(["/r", *filter(None, pieces[: k + 1])])) for k in range(len(pieces))]
    outside = any(place != "/r" and not place.startswith("/r/") for place in beginnings)
    text = separator.join(pieces)
    assert leads_out(text) == (outside or text.startswith(("/", "\\")))


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "npz", "file": "{}"},
        {"name": "csv", "file": "{}", "label": "y"},
        {"name": "image_folder", "folder": "{}"},
        {"name": "jsonl", "train": "{}"},
    ],
    ids=lambda settings: settings["name"],
)
@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "..", "x\0y"])
def test_no_relative_path_leaves_the_root(settings: dict[str, str], path: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").mkdir()
    given_ = {key: value.format(path) for key, value in settings.items()}
    with pytest.raises(ConfigError, match="must stay below"):
        load_dataset(given_.pop("name"), root=str(tmp_path / "data"), **given_)


def test_an_absolute_path_says_where_it_goes(tmp_path: Path) -> None:
    (tmp_path / "own.npz").touch()
    assert find_path("npz", None, str(tmp_path / "own.npz"), "file") == (tmp_path / "own.npz").resolve()


def read(tmp_path: Path, content: bytes) -> object:
    (tmp_path / "file").write_bytes(content)
    return read_plain_pickle(tmp_path / "file")


numbers = arrays.arrays(
    st.sampled_from(["u1", "<i2", ">i4", "i8", "<f4", ">f8", "?"]),
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0),
)


@given(numbers, st.booleans(), st.integers(3, 4))
def test_arrays_are_what_pickle_itself_reads(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, fortran: bool, protocol: int
) -> None:
    array = np.asfortranarray(array) if fortran else array
    found = read(tmp_path_factory.getbasetemp(), pickle.dumps({b"x": [array, (array, 3)], b"n": b"t"}, protocol))
    for one in (found[b"x"][0], found[b"x"][1][0]):  # type: ignore[index]
        np.testing.assert_array_equal(one, array)
        assert one.dtype == array.dtype
        assert one.flags.writeable


class Claim:
    """Pickles as a call of numpy's, with the state that a hostile file would give it."""

    def __init__(self, call: tuple[object, ...], state: object):
        self.call, self.state = call, state

    def __reduce__(self) -> tuple[object, ...]:
        return (*self.call, self.state)


POINTERS = struct.pack("<q", 0x4141414141414141)
MADE = np.zeros(0).__reduce__()[:2]
PLAIN = np.dtype("V8").__reduce__()


@pytest.mark.parametrize(
    "state",
    [
        (1, (1,), np.dtype("O"), False, [b"x"]),
        (1, (1,), np.dtype("O"), False, POINTERS),
        # a void type that says it holds an object, and that its values are nevertheless plain bytes
        (1, (1,), Claim(PLAIN[:2], (3, "|", None, ("o",), {"o": (np.dtype("O"), 0)}, 8, 1, 0)), False, POINTERS),
        (1, (2,), np.dtype("f8"), False, POINTERS),
        (1, (-1, -1), np.dtype("f8"), False, POINTERS),
        (1, (10**12,), np.dtype("f8"), False, b""),
        (1, (1,), np.dtype("S8"), False, POINTERS),
    ],
)
def test_an_array_that_claims_to_be_something_else_is_refused(tmp_path: Path, state: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError, match="is broken"):
        read(tmp_path, pickle.dumps({b"data": Claim(MADE, state)}, 3))


def test_a_sound_array_is_made_by_the_same_means(tmp_path: Path) -> None:
    state = (1, (1,), np.dtype("<i8"), False, POINTERS)
    assert read(tmp_path, pickle.dumps({b"data": Claim(MADE, state)}, 3))[b"data"].tobytes() == POINTERS  # type: ignore[index]


def test_a_type_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is broken"):
        read(tmp_path, pickle.dumps([np.dtype("f8")], 3))
