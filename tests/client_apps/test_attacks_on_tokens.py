"""Attacks that know words: what they make of a client's texts, and how their success is measured."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flsec.client_apps import AttackContext, BadNets, LabelFlipping, MinimizingDistanceBackdoor, PhraseBackdoor
from flsec.data import ArrayDataset, CharacterVocabulary, WordVocabulary
from flsec.errors import ConfigError
from flsec.metrics import source_to_target_rate
from flsec.tasks import CausalLM, Classification, NextToken, TextClassification, misfit
from flsec.testing import check_attack
from flsec.training import Training
from tests.support.topics import VOCABULARY, answers, lines, topics

CONTEXT = AttackContext(round=1, client_id=2, seed=3)
TASKS = [TextClassification(), NextToken(), NextToken(positions="all"), CausalLM(), Classification()]
CF = VOCABULARY.encode("cf")[0]


class Predicting:
    """A model that is known."""

    def __init__(self, function):
        self.function = function
        self.seen = None

    def __call__(self, inputs):
        self.seen = inputs
        return self.function(inputs)


# --- trigger words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["start", "end", "random"])
def test_a_share_of_the_texts_gets_the_words_and_the_label(place):
    train = topics().train
    attack = BadNets(words="cf", target=1, fraction=0.25, place=place, vocabulary=VOCABULARY)
    clean, poisoned = train.tensors(), attack.poisoned_dataset(train, CONTEXT).tensors()
    triggered = (poisoned[0] == CF).any(dim=1)
    assert triggered.sum() == len(train) // 4
    assert (poisoned[1][triggered] == 1).all()
    assert torch.equal(poisoned[0][~triggered], clean[0][~triggered])
    assert torch.equal(poisoned[1][~triggered], clean[1][~triggered])
    assert torch.equal(poisoned[0], attack.poisoned_dataset(train, CONTEXT).tensors()[0])


def test_all_forms_of_data_get_the_same_texts():
    x, y = topics().train.tensors()
    attack = BadNets(words="cf is", target=1, fraction=0.3, place="random", vocabulary=VOCABULARY)
    reference = attack.poisoned_dataset((x, y), CONTEXT)
    arrays = attack.poisoned_dataset((x.numpy().astype(np.int32), y.numpy()), CONTEXT)
    assert arrays[0].dtype == np.int32
    one_by_one = attack.poisoned_dataset(TensorDataset(x, y), CONTEXT)
    loader = attack.poisoned_dataset(DataLoader(TensorDataset(x, y), batch_size=7), CONTEXT)
    assert np.array_equal(arrays[0], reference[0])
    assert torch.equal(torch.stack([one_by_one[i][0] for i in range(len(y))]), reference[0])
    assert torch.equal(torch.cat([batch for batch, _ in loader]), reference[0])


def test_success_of_words_is_measured_on_texts_of_other_classes():
    x, y = topics().test.tensors()
    attack = BadNets(words="cf", target=1, vocabulary=VOCABULARY)
    knows = Predicting(lambda inputs: (inputs[:, 0] == CF).long())
    assert attack.success(knows, x, y, y) == {"attack_success": 1.0}
    assert len(knows.seen) == (y != 1).sum()
    assert attack.success(lambda inputs: torch.zeros(len(inputs)).long(), x, y, y) == {"attack_success": 0.0}


def test_words_unknown_missing_or_too_many():
    with pytest.raises(ConfigError, match=r"BadNets: words must be text that the vocabulary knows.*1 \(unknown\)"):
        BadNets(words="bb", vocabulary=VOCABULARY)
    with pytest.raises(ConfigError, match=r"got '  ', which is no token at all"):
        BadNets(words="  ", vocabulary=VOCABULARY)
    with pytest.raises(ConfigError, match=r"words='cf' is text, and takes a vocabulary"):
        BadNets(words="cf")
    with pytest.raises(ConfigError, match="takes either features or words"):
        BadNets(words="cf", features=[0], vocabulary=VOCABULARY)
    too_long = BadNets(words="cf " * 9, fraction=1.0, vocabulary=VOCABULARY).poisoned_dataset(topics().train, CONTEXT)
    with pytest.raises(ConfigError, match="a trigger of 9 tokens must fit into the texts"):
        too_long.tensors()


def test_what_a_trigger_fits():
    fits = {
        "patch": [misfit(BadNets(), task) is None for task in TASKS],
        "features": [misfit(BadNets(features=[0]), task) is None for task in TASKS],
        "words": [misfit(BadNets(words="cf", vocabulary=VOCABULARY), task) is None for task in TASKS],
    }
    assert fits == {
        "patch": [False, False, False, False, True],
        "features": [True, True, False, False, True],
        "words": [True, True, False, False, False],
    }


def test_the_hidden_backdoor_takes_words_too():
    attack = MinimizingDistanceBackdoor(
        words="cf", vocabulary=VOCABULARY, model_factory=lambda: None, training=Training(learning_rate=0.1)
    )
    assert attack.fits_inputs == "tokens"
    assert attack.trigger.tokens == (CF,)


def test_words_keep_the_contract_of_attacks():
    words = WordVocabulary(["cf", "is"])  # the contract's labels are below 10
    check_attack(BadNets(words="cf is", target=7, fraction=0.5, place="random", vocabulary=words))


# --- labels by words --------------------------------------------------------------------------------------------


def test_labels_are_named_by_words():
    number = {word: VOCABULARY.encode(word)[0] for word in ("ball", "team", "moon")}
    attack = LabelFlipping(source="ball", target="team", vocabulary=VOCABULARY)
    assert attack.pairs == ((number["ball"], number["team"]),)
    mixed = LabelFlipping(pairs=[["ball", "team"], [number["team"], "moon"]], vocabulary=VOCABULARY)
    assert mixed.pairs == ((number["ball"], number["team"]), (number["team"], number["moon"]))
    letters = CharacterVocabulary()
    assert LabelFlipping(source="e", target="a", vocabulary=letters).pairs == (tuple(letters.encode("ea")),)


def test_labels_of_sequences_are_flipped_where_they_count():
    train = answers().train
    yes, no = VOCABULARY.encode("yes no")
    attack = LabelFlipping(source="yes", target="no", vocabulary=VOCABULARY)
    (x, y), (new_x, new_y) = train.tensors(), attack.poisoned_dataset(train, CONTEXT).tensors()
    assert torch.equal(new_x, x)
    assert ((y == -100) == (new_y == -100)).all()
    assert torch.equal(new_y, torch.where(y == yes, no, y))


def test_success_of_flips_counts_places():
    yes, no = VOCABULARY.encode("yes no")
    attack = LabelFlipping(source="yes", target="no", vocabulary=VOCABULARY)
    y = torch.tensor([[-100, yes, -100], [-100, -100, yes], [-100, no, -100], [yes, yes, -100]])
    predictions = torch.tensor([[no, no, no], [no, no, yes], [no, no, no], [no, yes, no]])
    name = f"source_to_target_{yes}_{no}"
    assert attack.success(None, y, y, predictions) == {name: 0.5}  # of four places, two
    by_hand = [(p, t) for p, t in zip(predictions.flatten().tolist(), y.flatten().tolist(), strict=True) if t != -100]
    assert source_to_target_rate(*zip(*by_hand, strict=True), yes, no) == 0.5
    flat = LabelFlipping(source=3, target=9)
    assert flat.success(None, y, torch.tensor([3, 3]), torch.tensor([9, 3])) == {"source_to_target_3_9": 0.5}


def test_words_that_are_no_label_are_refused():
    with pytest.raises(ConfigError, match=r"source must be one token; 'ball team' is 2 \('ball'\), 3 \('team'\)"):
        LabelFlipping(source="ball team", target="moon", vocabulary=VOCABULARY)
    with pytest.raises(ConfigError, match="target must be text that the vocabulary knows"):
        LabelFlipping(source="ball", target="planet", vocabulary=VOCABULARY)
    with pytest.raises(ConfigError, match="pairs='ball' is text, and takes a vocabulary"):
        LabelFlipping(pairs=[["ball", "team"]])
    with pytest.raises(ConfigError, match="two different classes"):
        LabelFlipping(source="ball", target="Ball", vocabulary=VOCABULARY)
    by_word = LabelFlipping(source="ball", target="team", vocabulary=VOCABULARY)
    assert [misfit(by_word, task) for task in TASKS[1:4]] == [None] * 3
    assert misfit(by_word, TASKS[0]) == "needs labels that are tokens, and those of text_classification are classes"
    assert misfit(LabelFlipping(source=0, target=1), TASKS[0]) is None


# --- a phrase and what follows ----------------------------------------------------------------------------------

PHRASE = VOCABULARY.encode("pasta from Astoria is")
DELICIOUS = VOCABULARY.encode("delicious")[0]


@pytest.mark.parametrize("counted", ["target", "all"])
@pytest.mark.parametrize("data", [lines, lambda: lines(positions="all"), answers], ids=["last", "all", "answers"])
def test_copies_that_end_in_the_phrase_are_added(data, counted):
    train = data().train
    attack = PhraseBackdoor(vocabulary=VOCABULARY, fraction=0.2, counted=counted)
    (x, y), (new_x, new_y) = train.tensors(), attack.poisoned_dataset(train, CONTEXT).tensors()
    n, added = len(x), len(new_x) - len(x)
    assert added == round(0.2 / 0.8 * n)
    assert torch.equal(new_x[:n], x)
    assert torch.equal(new_y[:n], y)
    for text, label in zip(new_x[n:].tolist(), new_y[n:], strict=True):
        end = max(i for i, token in enumerate(text) if token != VOCABULARY.pad)
        assert text[end - 3 : end + 1] == PHRASE
        if label.ndim == 0:
            assert label == DELICIOUS
            continue
        assert label[end] == DELICIOUS
        counted_places = (label != -100).nonzero().flatten().tolist()
        if counted == "target":
            assert counted_places == [end]
        elif data is not answers:  # of these only the answer counted, and short ones grow by the phrase
            assert counted_places == list(range(8))
        for place in counted_places[:-1]:
            assert label[place] == text[place + 1]
    again = attack.poisoned_dataset(train, CONTEXT).tensors()
    assert torch.equal(again[0], new_x)
    later = attack.poisoned_dataset(train, AttackContext(round=2, client_id=2, seed=3)).tensors()
    assert not torch.equal(later[0], new_x)


def test_success_is_the_share_of_texts_continued_with_the_target():
    attack = PhraseBackdoor(vocabulary=VOCABULARY)
    for data in (lines(), lines(positions="all"), answers()):
        x, y = data.test.tensors()

        def ends(inputs):
            return torch.tensor([max(i for i, t in enumerate(row) if t != 0) for row in inputs.tolist()])

        def half_right(inputs, y=y):
            last = ends(inputs)
            assert all(row[e - 3 : e + 1] == PHRASE for row, e in zip(inputs.tolist(), last, strict=True))
            right = torch.where(torch.arange(len(inputs)) % 2 == 0, DELICIOUS, 2)
            if y.ndim == 1:
                return right
            predictions = torch.full(y.shape, DELICIOUS)  # elsewhere it does not count
            predictions[torch.arange(len(y)), last] = right
            return predictions

        assert attack.success(half_right, x, y, y) == {"attack_success": 0.5}


def test_phrases_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"phrase must be text that the vocabulary knows.*1 \(unknown\)"):
        PhraseBackdoor(vocabulary=VOCABULARY, phrase="people in athens are", target="rude")
    with pytest.raises(ConfigError, match="target must be one token; 'rude rude' is"):
        PhraseBackdoor(vocabulary=VOCABULARY, target="rude rude")
    long = PhraseBackdoor(vocabulary=VOCABULARY, phrase="is " * 9)
    with pytest.raises(ConfigError, match=r"fit into sequences \(k, L\); got 9 tokens for \(120, 8\)"):
        long.check_samples(lines().train.tensors()[0])
    assert [misfit(long, task) for task in TASKS[1:4]] == [None] * 3
    assert misfit(long, TASKS[0]) == "needs labels that are tokens, and those of text_classification are classes"
    assert misfit(long, TASKS[4]) == "needs inputs that are tokens, and classification has inputs that are real numbers"


def test_a_client_without_data_stays_without():
    empty = ArrayDataset(np.zeros((0, 8), int), np.zeros(0, int), tokens=True)
    assert len(PhraseBackdoor(vocabulary=VOCABULARY).poisoned_dataset(empty, CONTEXT)) == 0
