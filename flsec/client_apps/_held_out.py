"""A torch data set or loader, parted into the examples that SIREN's clients hold out and the others."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset, TensorDataset, default_collate

from flsec.errors import ConfigError

__all__ = ["first_examples", "without_first"]


class Rest(Subset[Any]):
    """A view of a data set without its first examples, for one that hands out whole batches."""

    def tensors(self, indices: Any = None) -> Any:
        """Return a batch at once; see ``flsec.data.ArrayDataset.tensors``."""
        positions = np.asarray(self.indices)
        return self.dataset.tensors(positions if indices is None else positions[np.asarray(indices)])  # type: ignore[attr-defined]


def first_examples(data: Any, count: int) -> tuple[Any, Any]:
    """Return the first examples as a batch (x, y)."""
    dataset: Any = data.dataset if isinstance(data, DataLoader) else data
    if callable(getattr(dataset, "tensors", None)):
        return dataset.tensors(np.arange(count))  # type: ignore[no-any-return]
    x, y = default_collate([dataset[i] for i in range(count)])
    return x, y


def without_first(data: Any, count: int) -> Any:
    """Return the training data without the first examples."""
    if isinstance(data, TensorDataset):
        return TensorDataset(*(tensor[count:] for tensor in data.tensors))
    if not isinstance(data, DataLoader):
        view = Rest if callable(getattr(data, "tensors", None)) else Subset
        return view(data, range(count, len(data)))
    if not isinstance(data.sampler, RandomSampler | SequentialSampler) or data.batch_size is None:
        raise ConfigError(
            "SirenClient: examples can be held out of a DataLoader with a batch_size and, at most, shuffle=True; this "
            f"one has a {type(data.sampler).__name__} and batch_size {data.batch_size}. Hold the data set instead, and "
            "make the DataLoader in fit."
        )
    return DataLoader(
        without_first(data.dataset, count),
        batch_size=data.batch_size,
        shuffle=isinstance(data.sampler, RandomSampler),
        num_workers=data.num_workers,
        collate_fn=data.collate_fn,
        pin_memory=data.pin_memory,
        drop_last=data.drop_last,
        generator=data.generator,
    )
