import math

import pytest
import torch

from flsec.errors import ConfigError
from flsec.tasks import CausalLM, NextToken
from flsec.training import evaluate
from tests.support.task_brute_force import accuracy, cross_entropy, drawn, labelled


@pytest.mark.parametrize("seed", range(3))
def test_the_last_token_is_a_class(seed):
    task, logits, labels = NextToken(), drawn(9, 7, seed=seed), labelled(9, classes=7, seed=seed)
    assert float(task.loss(logits, labels)) == pytest.approx(cross_entropy(logits, labels), rel=1e-6)
    right, count = task.tallies(logits, labels)["accuracy"]
    assert (int(right), count) == accuracy(logits, labels)
    assert torch.equal(task.classes(labels), labels)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_all_tokens_are_judged_where_they_are_counted(seed, share):
    task = NextToken(positions="all")
    logits, labels = drawn(6, 5, 7, seed=seed), labelled(6, 5, classes=7, seed=seed, share_counted=share)
    labels[0, 0] = 3  # at least one
    assert float(task.loss(logits, labels)) == pytest.approx(cross_entropy(logits, labels), rel=1e-6)
    right, count = task.tallies(logits, labels)["accuracy"]
    assert (int(right), count) == accuracy(logits, labels)
    assert task.num_counted(labels) == count
    assert task.classes(labels) is None


def test_where_nothing_is_counted_the_loss_is_zero_and_has_a_gradient():
    task, logits = NextToken(positions="all"), drawn(2, 3, 5).requires_grad_()
    loss = task.loss(logits, torch.full((2, 3), -100))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss) == 0
    assert not gradient.any()


def test_a_mean_over_batches_weighs_tokens_and_not_examples():
    """One row counts 4 tokens, the other 1: the loss is the mean of five."""
    model = torch.nn.Embedding(6, 6)
    x = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 1]])
    y = torch.tensor([[1, 2, 3, 4], [5, -100, -100, -100]])
    result = evaluate(model, x, y, batch_size=1, task=NextToken(positions="all"))
    with torch.no_grad():
        expected = cross_entropy(model(x), y)
    assert result.loss == pytest.approx(expected, rel=1e-6)
    assert result.measures["perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert result.predictions.shape == (2, 4)


def test_perplexity_of_a_uniform_guess_is_the_number_of_tokens():
    task, labels = NextToken(), labelled(20, classes=11)
    loss = float(task.loss(torch.zeros(20, 11), labels))
    assert task.summary(loss, {"accuracy": 0.0})["perplexity"] == pytest.approx(11, rel=1e-5)
    assert task.summary(1e5, {})["perplexity"] == math.inf
    assert math.isnan(task.summary(math.nan, {})["perplexity"])


def test_another_position_is_refused():
    with pytest.raises(ConfigError, match="positions") as caught:
        NextToken(positions="first")
    assert "task 'next_token'" in str(caught.value)


def test_data_of_one_position_are_no_data_of_all():
    last, everywhere = NextToken(), NextToken(positions="all")
    assert not last.takes_data_of(everywhere)
    assert not everywhere.takes_data_of(last)
    assert everywhere.takes_data_of(CausalLM())


def test_a_model_must_answer_at_each_place_where_all_are_judged():
    x = torch.zeros(2, 4, dtype=torch.int64)
    each, one = torch.nn.Embedding(9, 9), torch.nn.Sequential(torch.nn.Embedding(9, 3), torch.nn.Flatten())
    NextToken(positions="all").check_model(each, x, 9)
    with pytest.raises(ConfigError, match=r"one number a class, \(2, 9\) for two samples; got \(2, 4, 9\)"):
        NextToken().check_model(each, x, 9)
    with pytest.raises(ConfigError, match=r"at each place, \(2, 4, 9\) for two samples; got \(2, 12\)"):
        NextToken(positions="all").check_model(one, x, 9)
