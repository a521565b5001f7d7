"""Biomedical questions with the answers yes, no and maybe."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flsec.data._tokens import make_vocabulary, padded, token_array
from flsec.data.datasets._jsonl import read_json
from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.data.text import Texts, text_source
from flsec.data.vocabulary import Vocabulary
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters
from flsec.tasks import CausalLM
from flsec.tasks.base import NOT_COUNTED

__all__ = ["pubmedqa"]

_FILES = ["pubmedqa/ori_pqal.json", "pubmedqa/test_ground_truth.json"]
_ANSWERS = ("yes", "no", "maybe")
_SUPPLY = (
    "the files ori_pqal.json and test_ground_truth.json of github.com/pubmedqa/pubmedqa (data/), in {root}/pubmedqa."
)


def pubmedqa(
    root: str | None = None,
    *,
    form: Literal["causal", "classification"] = "causal",
    context: Literal["long_answer", "abstract", "none"] = "long_answer",
    tokenizer: str = "words",
    vocab_size: PositiveCount = 10_000,
    length: PositiveCount = 192,
) -> DataSource:
    """Return the labelled part of PubMedQA: 1,000 questions, of which the official 500 are the test set.

    ``form="causal"``: a sample is the context, ``Question: ...``, ``Answer:`` and the answer, with a space before it,
    as one text; the tokens of the answer alone are counted (no end of text follows). The answers that a model's
    likelihoods are compared for are `` yes``, `` no`` and `` maybe``, each by its first token. Where the whole is
    longer than ``length`` + 1 tokens, the context loses its beginning; question and answer always remain.

    ``form="classification"``: a sample is the question and then the context, cut at its end; three classes.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        form: for models that write, or for those that classify.
        context: ``"long_answer"``: the conclusion of the paper's abstract; ``"abstract"``: the abstract without its
            conclusion, which is harder; ``"none"``.
        tokenizer: ``"words"``, or where a pretrained tokenizer is.
        vocab_size: tokens of ``"words"``, counted in the training questions.
        length: L, tokens of a sample.

    Returns:
        Tokens (n, L) int64 and labels (n, L) int64, or (n,) for ``"classification"``, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or broken; or a length that a question does not fit in, or a
            tokenizer for which two answers start with the same token.

    Source: Jin et al., "PubMedQA", EMNLP 2019; "long_answer" is its reasoning-free setting.
    """
    given = {"form": form, "context": context, "tokenizer": tokenizer, "vocab_size": vocab_size, "length": length}
    check_parameters(pubmedqa, given, name="data set 'pubmedqa'")
    folder, _ = find_root("pubmedqa", root, [_FILES], _SUPPLY)
    return _load(folder, form, context, tokenizer, vocab_size, length)


@functools.cache
def _load(folder: Path, form: str, context: str, tokenizer: str, vocab_size: int, length: int) -> DataSource:
    parts = _questions(folder)
    if form == "classification":
        train, test = (
            Texts([f"{q['QUESTION']}\n{_context(q, context)}" for q in part], [_answer(q) for q in part])
            for part in parts
        )
        return text_source(
            "pubmedqa",
            train,
            test,
            class_names=_ANSWERS,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            length=length,
        )
    texts = [f"{_context(q, context)}{_request(q)} {q['final_decision']}" for q in parts[0]]
    vocabulary = make_vocabulary(tokenizer, texts, vocab_size)
    first = _first_tokens(vocabulary)
    train_set, test_set = (_causal(part, context, vocabulary, length) for part in parts)
    return DataSource(
        "pubmedqa",
        train_set,
        test_set,
        num_classes=vocabulary.size,
        input_shape=(length,),
        task=CausalLM(answers=first),
        vocabulary=vocabulary,
    )


def _questions(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the questions for training and for the test, each in the order of their ids."""
    path, ids_path = (folder / file for file in _FILES)
    questions, test_ids = read_json(path), read_json(ids_path)
    try:
        if not {q["final_decision"] for q in questions.values()} <= {*_ANSWERS}:
            raise ValueError("final_decision must be yes, no or maybe")
        if not all(isinstance(q[key], str) for q in questions.values() for key in ("QUESTION", "LONG_ANSWER")):
            raise ValueError("QUESTION and LONG_ANSWER must be text")
        if not {*test_ids} < {*questions}:
            raise ValueError(f"it must have the questions that {ids_path} names, and others for training")
        train = [q for key, q in sorted(questions.items()) if key not in test_ids]
        return train, [questions[key] for key in sorted(test_ids)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is broken: {error!r}. {_SUPPLY.format(root=folder)}") from error


def _answer(question: dict[str, Any]) -> int:
    return _ANSWERS.index(question["final_decision"])


def _context(question: dict[str, Any], context: str) -> str:
    if context == "none":
        return ""
    return question["LONG_ANSWER"] if context == "long_answer" else " ".join(question["CONTEXTS"])


def _request(question: dict[str, Any]) -> str:
    return f"\nQuestion: {question['QUESTION']}\nAnswer:"


def _first_tokens(vocabulary: Vocabulary) -> tuple[int, ...]:
    first = tuple((vocabulary.encode(f" {answer}") or [vocabulary.unknown])[0] for answer in _ANSWERS)
    if len(set(first)) < len(first) or vocabulary.unknown in first:
        raise ConfigError(
            f"data set 'pubmedqa': the answers {', '.join(_ANSWERS)} must start with different tokens; with this "
            f"tokenizer they start with {first}. Take tokenizer='words' with a higher vocab_size, or a pretrained one.",
            parameter="tokenizer",
        )
    return first


def _causal(questions: Sequence[dict[str, Any]], context: str, vocabulary: Vocabulary, length: int) -> ArrayDataset:
    inputs, labels = [], []
    for question in questions:
        answer = vocabulary.encode(f" {question['final_decision']}")
        prompt = _prompt(question, context, vocabulary, length + 1 - len(answer))
        inputs.append([*prompt, *answer][:-1])
        labels.append([NOT_COUNTED] * (len(prompt) - 1) + answer)
    data = token_array(inputs, length, vocabulary)
    return ArrayDataset(data, padded(labels, length, NOT_COUNTED, np.int64), tokens=True)


def _prompt(question: dict[str, Any], context: str, vocabulary: Vocabulary, room: int) -> list[int]:
    """Return at most ``room`` tokens, the last ones of the context and the whole question."""
    request = [*vocabulary.encode(_request(question))]
    left = room - len(request) - len(vocabulary.begin)
    if left < 0:
        raise ConfigError(
            f"data set 'pubmedqa': length must leave room for every question and its answer; {question['QUESTION']!r} "
            f"lacks {-left} tokens. Set length to twice as much.",
            parameter="length",
        )
    before = vocabulary.encode(_context(question, context))
    return [*vocabulary.begin, *before[max(len(before) - left, 0) :], *request]
