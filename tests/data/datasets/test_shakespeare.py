import pickle

import numpy as np
import pytest
import torch

from flsec.data import load_dataset
from flsec.data.datasets import shakespeare
from flsec.errors import ConfigError

ROMEO, JULIET = "Romeo speaks. " * 70, "O Romeo! \n" * 17  # 980 and 170 characters


def play(root, speeches=None):
    """Two speakers in turns; one says too little."""
    speeches = speeches or [
        ("ROMEO", ROMEO[:100]),
        ("JULIET", JULIET),
        ("ROMEO", ROMEO[100:]),
        ("PAGE", "Ay."),
        ("PAGE", ""),
    ]
    (root / "shakespeare").mkdir(exist_ok=True)
    text = "\n\n".join(f"{name}:\n{words}".strip("\n") for name, words in speeches)
    (root / "shakespeare" / "tinyshakespeare.txt").write_text(text + "\n")
    return str(root)


def written(source, part, row):
    return source.vocabulary.decode(part.tensors([row])[0][0].tolist())


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("stride", [1, 7, 80])
def test_windows_are_the_brute_force_ones(tmp_path, positions, stride):
    source = shakespeare(play(tmp_path), positions=positions, stride=stride, min_characters=100)
    texts = {"JULIET": JULIET.strip("\n"), "ROMEO": f"{ROMEO[:100]}\n{ROMEO[100:]}"}
    expected, groups = {0: [], 1: []}, []
    for speaker, text in enumerate(texts.values()):
        cut = len(text) - len(text) // 10
        for part, own in enumerate((text[:cut], text[cut:])):
            for start in range(0, len(own) - 80, stride):
                expected[part].append(own[start : start + 81])
                groups += [speaker] * (part == 0)
    encode = source.vocabulary.encode
    if not expected[1]:
        pytest.fail("the fixture is too short")
    for part, dataset in enumerate((source.train, source.test)):
        x, y = dataset.tensors()
        assert x.tolist() == [encode(window[:-1]) for window in expected[part]]
        assert y.tolist() == [
            encode(window[1:]) if positions == "all" else encode(window)[-1] for window in expected[part]
        ]
    assert source.natural_ids("speaker").tolist() == groups


def test_a_window_costs_its_number_and_travels_as_the_path(tmp_path):
    root = play(tmp_path, [("ROMEO", ROMEO * 10)])
    source = shakespeare(root)
    assert shakespeare(root) is load_dataset("shakespeare", root, stride=1)
    view = source.train.subset([5, 3])
    sent = pickle.dumps(view)
    assert len(sent) < 1200
    assert torch.equal(pickle.loads(sent).tensors()[0], view.tensors()[0])


def test_the_default_stride_counts_each_character_once_where_all_positions_count(tmp_path):
    source = shakespeare(play(tmp_path, [("ROMEO", ROMEO * 10)]), positions="all")
    assert source.train.labels.shape == (110, 80)  # of 8,820 characters
    assert "".join(written(source, source.train, row) for row in range(110)) == (ROMEO * 10)[: 110 * 80]


def test_characters_outside_leafs_alphabet_are_unknown(tmp_path):
    source = shakespeare(play(tmp_path, [("ROMEO", "$" * 1000)]))
    assert set(source.train.labels) == {source.vocabulary.unknown}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Just prose.\n\nMore.", "must come a line NAME:.*got 'Just prose.'"),
        (b"ROMEO:\n\xff\xfe", "no text in UTF-8"),
        (b"", "no speaker with 1000 characters or more"),
        (b"ROMEO:\nAy.", "no speaker with 1000 characters or more.*Lower min_characters"),
    ],
)
def test_another_kind_of_text_is_named(tmp_path, content, words):
    root = play(tmp_path)
    path = tmp_path / "shakespeare" / "tinyshakespeare.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path}.*{words}"):
        shakespeare(root)


def test_speakers_too_short_for_a_test_window_are_named(tmp_path):
    with pytest.raises(ConfigError, match="window of 80 characters in its last tenth"):
        shakespeare(play(tmp_path, [("ROMEO", "x" * 500)]), min_characters=1)


def test_missing_data_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}/shakespeare/tinyshakespeare.txt"):
        shakespeare(str(tmp_path))


def test_the_real_one(real_root):
    source = shakespeare(real_root("shakespeare/tinyshakespeare.txt"))
    assert len(np.unique(source.natural_ids())) == 141
    assert (len(source.train), len(source.test)) == (867_478, 86_294)
    assert (source.train.labels == source.vocabulary.unknown).sum() <= 1  # the one $
