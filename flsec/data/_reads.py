"""Whether training data were read: in this process, or in a process that a DataLoader has started."""

import mmap
from typing import Any

__all__ = ["Reads", "ReadsCounted"]


class Reads:
    """A mark that is set once something is read; processes that are forked from this one set the same mark."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def note(self) -> None:
        """Set the mark."""
        self._shared[0] = 1

    def __bool__(self) -> bool:
        return self._shared[0] == 1

    def __deepcopy__(self, memo: Any) -> "Reads":
        return self  # copied data set the same mark

    def __reduce__(self) -> Any:
        self.note()  # whoever takes the data to another machine or process is going to read them there
        return Reads, ()


class ReadsCounted:
    """Data that note where they are read. Those who want to know put their marks into ``noted_by``."""

    noted_by: tuple[Reads, ...] = ()

    def note_read(self) -> None:
        """Set all marks."""
        for reads in self.noted_by:
            reads.note()
