"""What it computes is tested with classification; here, that it is one of tokens."""

import torch

from flsec.tasks import TextClassification
from flsec.training import evaluate
from tests.support import tiny_tasks


def test_texts_are_judged_as_tokens():
    source = tiny_tasks.texts()
    x, y = source.test.tensors()
    assert x.dtype == torch.int64
    model = tiny_tasks.TokenModel((tiny_tasks.LENGTH,), tiny_tasks.CLASSES, vocab_size=tiny_tasks.TOKENS)
    result = evaluate(model, x, y, task=TextClassification())
    assert result.predictions.shape == (tiny_tasks.TEST,)
    assert set(result.measures) == {"accuracy"}
    assert result.accuracy == float((result.predictions == y).double().mean())
