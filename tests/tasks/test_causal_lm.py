import pytest
import torch

from flsec.errors import ConfigError
from flsec.tasks import CausalLM
from tests.support.task_brute_force import accuracy, cross_entropy, drawn, labelled

YES, NO, MAYBE = 3, 5, 6
ANSWERS = (YES, NO, MAYBE)


@pytest.mark.parametrize("task", [CausalLM(), CausalLM(answers=ANSWERS)], ids=["free", "answers"])
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_accuracy_by_hand(task, seed):
    logits, labels = drawn(6, 5, 8, seed=seed), labelled(6, 5, classes=8, seed=seed, share_counted=0.5)
    labels[0, 0] = YES
    assert float(task.loss(logits, labels)) == pytest.approx(cross_entropy(logits, labels), rel=1e-6)
    right, count = task.tallies(logits, labels)["accuracy"]
    assert (int(right), count) == accuracy(logits, labels)


def answered(logits, labels):
    """(right, all), by loops: the likeliest answer at the first counted place against the label there."""
    right = 0
    for row, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        place = next((i for i, label in enumerate(truth) if label != -100), 0)
        likelihoods = [row[place][answer] for answer in ANSWERS]
        right += ANSWERS[likelihoods.index(max(likelihoods))] == truth[place]
    return right, len(labels)


@pytest.mark.parametrize("seed", range(5))
def test_answers_are_judged_at_the_first_counted_place_alone(seed):
    logits, labels = drawn(30, 4, 8, seed=seed), torch.full((30, 4), -100)
    generator = torch.Generator().manual_seed(seed)
    for row in range(30):
        place = int(torch.randint(0, 4, (), generator=generator))
        labels[row, place] = ANSWERS[row % 3]
        labels[row, place + 1 :] = YES  # what follows is learned, and no answer
    right, count = CausalLM(answers=ANSWERS).tallies(logits, labels)["answer_accuracy"]
    assert (int(right), count) == answered(logits, labels)
    assert 0 < int(right) < 30


def test_the_likeliest_of_the_answers_counts_even_where_another_word_is_likelier():
    logits, labels = torch.zeros(1, 2, 8), torch.tensor([[-100, NO]])
    logits[0, 1, 0], logits[0, 1, NO] = 9.0, 1.0
    tallies = CausalLM(answers=ANSWERS).tallies(logits, labels)
    assert int(tallies["answer_accuracy"][0]) == 1
    assert int(tallies["accuracy"][0]) == 0


def test_of_answers_that_are_equally_likely_the_first_is_chosen():
    task, logits = CausalLM(answers=[NO, YES]), torch.zeros(2, 1, 8)
    right, _ = task.tallies(logits, torch.tensor([[NO], [YES]]))["answer_accuracy"]
    assert int(right) == 1


def test_a_poisoned_label_that_is_no_answer_is_wrong_whatever_is_predicted():
    task = CausalLM(answers=ANSWERS)
    labels = torch.tensor([[-100, 7], [-100, YES], [-100, -100]])  # no answer; an answer; nothing counted
    for token in ANSWERS:
        logits = torch.zeros(3, 2, 8)
        logits[:, :, token] = 5.0
        right, count = task.tallies(logits, labels)["answer_accuracy"]
        assert (int(right), count) == (int(token == YES), 3)
    assert task.classes(labels).tolist() == [-1, 0, -1]


def test_without_answers_there_are_no_classes_and_no_answer_accuracy():
    labels = torch.tensor([[-100, YES]])
    assert CausalLM().classes(labels) is None
    assert set(CausalLM().tallies(torch.zeros(1, 2, 8), labels)) == {"accuracy"}
    assert CausalLM().summary(0.0, {"accuracy": 0.5}) == {"accuracy": 0.5, "perplexity": 1.0}


@pytest.mark.parametrize(
    ("answers", "words"),
    [([3], "two or more different tokens"), ([3, 3], "two or more different"), ([-1, 3], "answers"), ("ab", "answers")],
)
def test_answers_that_cannot_be_told_apart_are_refused(answers, words):
    with pytest.raises(ConfigError, match=words) as caught:
        CausalLM(answers=answers)
    assert "task 'causal_lm'" in str(caught.value)


def test_lists_and_tuples_make_the_same_task():
    assert CausalLM(answers=[3, 5]) == CausalLM(answers=(3, 5))
    assert hash(CausalLM(answers=[3, 5])) == hash(CausalLM(answers=(3, 5)))
