"""The states of a run, or of a server, after its rounds: the newest that is whole counts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flsec._files import Damaged
from flsec._state_files import load_state, save_state
from flsec.errors import ConfigError

__all__ = ["Checkpoint", "Checkpoints"]

_SUFFIX = ".state"


@dataclass(frozen=True)
class Checkpoint:
    """A state that is whole.

    Attributes:
        round: after which it was taken; 0 where nothing has been saved.
        state: as it was saved; None where nothing has been.
        lost: why newer ones cannot be used, newest first.
    """

    round: int
    state: Any
    lost: tuple[str, ...] = ()


class Checkpoints:
    """States by round, ``round-000003.state`` and so on, in a folder that only the owner may enter.

    Args:
        folder: made when something is saved.
        kind: one word for what saves here.
        owner: what tells one run from another; the state of another is refused.
    """

    def __init__(self, folder: Path, kind: str, owner: str = ""):
        self.folder = folder
        self._kind = kind
        self._owner = owner

    def rounds(self) -> list[int]:
        """Return the rounds that have a file, ascending."""
        names = (path.stem.removeprefix("round-") for path in self.folder.glob(f"round-*{_SUFFIX}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, round: int, state: Any, keep: int | None) -> None:
        """Write the state after ``round``; keep the newest ``keep`` (None: all).

        Raises:
            SaveError: the disk is full, say; those that were there still are.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        save_state(self._path(round), {"round": round, "owner": self._owner, "state": state}, self._kind)
        if keep is not None:
            for old in self.rounds()[:-keep]:
                self._path(old).unlink()

    def load(self, round: int) -> Any:
        """Return the state after ``round``.

        Raises:
            Damaged: the file is cut off, changed, another run's, or not there.
        """
        path = self._path(round)
        saved = load_state(path, self._kind)
        if not isinstance(saved, dict) or saved.keys() != {"round", "owner", "state"}:
            raise Damaged(f"{path.name} holds something else")
        if saved["owner"] != self._owner:
            raise Damaged(f"{path.name} is another run's")
        if saved["round"] != round:
            raise Damaged(f"{path.name} is of round {saved['round']}")
        return saved["state"]

    def newest(self, check: Callable[[int], None] = lambda round: None) -> Checkpoint:
        """Return the newest state that can be used, and why newer ones cannot.

        Args:
            check: raises ``Damaged`` where what belongs to a round's state is not whole.

        Raises:
            ConfigError: there are some, and not one can be used; the message has all reasons.
        """
        lost: list[str] = []
        for round in reversed(self.rounds()):
            try:
                check(round)
                return Checkpoint(round, self.load(round), tuple(lost))
            except Damaged as reason:
                lost.append(f"round {round}: {reason}")
        lost += [f"{path.name} is of another version of flsec" for path in self.folder.glob("round-*.safetensors")]
        if lost:
            raise ConfigError(
                f"none of the states in {str(self.folder)!r} can be used: {'; '.join(lost)}. Put a copy that is whole "
                "in the place of one of them, or start anew in another folder."
            )
        return Checkpoint(0, None)

    def forget_after(self, round: int) -> None:
        """Remove the states of later rounds, which are played again."""
        for later in reversed(self.rounds()):
            if later > round:
                self._path(later).unlink()

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}{_SUFFIX}"
