import pytest
import torch

from flsec.errors import ConfigError
from flsec.tasks import CLASSIFICATION, Classification, TextClassification
from tests.support.task_brute_force import accuracy, cross_entropy, drawn, labelled


@pytest.mark.parametrize("task", [Classification(), TextClassification()], ids=lambda task: task.name)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_accuracy_by_hand(task, seed):
    logits, labels = drawn(17, 5, seed=seed), labelled(17, classes=5, seed=seed + 10)
    assert float(task.loss(logits, labels)) == pytest.approx(cross_entropy(logits, labels), rel=1e-6)
    right, count = task.tallies(logits, labels)["accuracy"]
    assert (int(right), count) == accuracy(logits, labels)
    assert task.num_counted(labels) == count == 17
    assert task.predictions(logits).shape == (17,)
    assert torch.equal(task.classes(labels), labels)
    assert task.summary(1.0, {"accuracy": 0.25}) == {"accuracy": 0.25}


def test_of_two_equally_likely_classes_the_first_is_predicted():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    assert CLASSIFICATION.predictions(logits).tolist() == [0, 1]


def test_the_loss_of_a_batch_is_that_of_the_model_s_outputs():
    model, x, y = torch.nn.Linear(3, 4).double(), drawn(6, 3).double(), labelled(6, classes=4)
    assert float(CLASSIFICATION.batch_loss(model, x, y)) == pytest.approx(cross_entropy(model(x).detach(), y))


def test_images_and_texts_are_told_apart():
    images, texts = Classification(), TextClassification()
    assert images.takes_data_of(images)
    assert texts.takes_data_of(texts)
    assert not images.takes_data_of(texts)
    assert not texts.takes_data_of(images)
    assert images == CLASSIFICATION != texts


@pytest.mark.parametrize("outputs", [3, 5])
def test_a_model_of_another_number_of_classes_is_refused(outputs):
    model = torch.nn.Linear(2, outputs)
    with pytest.raises(ConfigError, match=rf"one number a class, \(2, 4\) for two samples; got \(2, {outputs}\)"):
        CLASSIFICATION.check_model(model, torch.zeros(2, 2), 4)
    CLASSIFICATION.check_model(torch.nn.Linear(2, 4), torch.zeros(2, 2), 4)
