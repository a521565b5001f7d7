"""Arrays that a client keeps from one round to the next, wherever it runs."""

import contextlib
import contextvars
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from flsec._files import Damaged, read_checked, write_checked
from flsec.client_apps._around import as_array, client_id_of, context_of, round_of
from flsec.errors import ConfigError

__all__ = ["ClientState", "check_states", "prune_states", "state_folder"]

_KIND, _SUFFIX = "client-state", ".state"

_folder: contextvars.ContextVar[Path | None] = contextvars.ContextVar("state_folder", default=None)


class ClientState:
    """What one client keeps, by name: an own model, the last update.

    It lies in files below the folder of ``state_folder``, which simulations set, and which only the owner may read; or
    else in the state of the Flower
    context, which Flower keeps with the node; or else on the client object, and is lost with it. The context is known
    in apps made by ``flsec.client_apps.numpy_client_app``, through a decorated ``client_fn``, and from the client's
    attribute ``context``. A round sees what earlier rounds saved and nothing later, so that a run that is resumed from
    an earlier round finds what was there then.

    Args:
        client: the client at work. In a folder its partition id must be known: its attribute ``client_id`` or
            ``partition_id``, or Flower's ``partition-id``.
        config: the fit configuration that the server sent; its round counts.

    Raises:
        ConfigError: a folder is set, and client or round are not known; by ``load``: the file is damaged.

    Example:
        >>> class Client: client_id = 3
        >>> client = Client()
        >>> ClientState(client, {"server-round": 1}).save("own", [np.ones(2)])
        >>> ClientState(client, {"server-round": 2}).load("own")
        [array([1., 1.])]
        >>> ClientState(client, {"server-round": 1}).load("own")  # saved in this round, not before it
    """

    def __init__(self, client: Any, config: Mapping[str, Any]) -> None:
        self._client = client
        self._round = round_of(config)
        self._context = context_of(client)
        self._files: Path | None = None
        folder = _folder.get()
        if folder is not None:
            client_id = client_id_of(client)
            if client_id < 0 or self._round < 1:
                raise ConfigError(
                    "a client that keeps something from round to round in a folder needs its partition id and the "
                    f"server's round; got client {client_id}, round {self._round}. Give the client an attribute "
                    "client_id; flsec's strategies send 'server-round'."
                )
            self._files = folder / str(client_id)

    def load(self, name: str) -> list[NDArray[Any]] | None:
        """Return a copy of what was last saved under ``name`` in an earlier round; None if there is nothing."""
        if self._files is not None:
            return self._load_file(name)
        if self._context is not None:
            record = self._context.state.array_records.get(f"flsec.{name}")
            if record is None:
                return None
            when, *kept = [array.numpy() for array in record.values()]
            return self._if_earlier(int(when), kept)
        saved, arrays = vars(self._client).get("_flsec_state", {}).get(name, (0, None))
        return None if arrays is None else self._if_earlier(saved, arrays)

    def save(self, name: str, arrays: Sequence[Any]) -> None:
        """Keep copies of ``arrays`` under ``name``, in place of what was there.

        Raises:
            TypeError: something is no array of numbers.
        """
        kept = [as_array(array).numpy() for array in arrays]
        if self._files is not None:
            self._save_file(name, kept)
        elif self._context is not None:
            record = {str(i): as_array(array) for i, array in enumerate([self._round, *kept])}
            self._context.state[f"flsec.{name}"] = ArrayRecord(record)
        else:
            vars(self._client).setdefault("_flsec_state", {})[name] = (self._round, kept)

    def _if_earlier(self, saved: int, arrays: list[NDArray[Any]]) -> list[NDArray[Any]] | None:
        known = saved > 0 and self._round > 0  # without rounds, the last is the last
        return None if known and saved >= self._round else [np.array(array) for array in arrays]

    def _load_file(self, name: str) -> list[NDArray[Any]] | None:
        assert self._files is not None
        earlier = [(saved, path) for saved, path in _versions(self._files).get(name, ()) if saved < self._round]
        if not earlier:
            return None
        try:
            payload = read_checked(max(earlier)[1], _KIND)
        except Damaged as reason:
            raise ConfigError(
                f"what client {self._files.name} has kept is lost: {reason}. Resume the run, which goes back to the "
                "last round that is whole."
            ) from None
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            return [file[f"arr_{i}"] for i in range(len(file.files))]

    def _save_file(self, name: str, arrays: Sequence[NDArray[Any]]) -> None:
        assert self._files is not None
        for folder in (self._files.parent, self._files):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.savez(stream, *arrays)
        write_checked(self._files / f"{name}-{self._round:06d}{_SUFFIX}", _KIND, stream.getvalue())


@contextlib.contextmanager
def state_folder(folder: Path | None) -> Iterator[None]:
    """Let the clients that work meanwhile keep their state in files below ``folder``; None changes nothing.

    Args:
        folder: made when something is saved; each client has a folder in it, each round in which it saved something
            a file. ``prune_states`` removes those that no checkpoint needs.

    Example:
        >>> import tempfile
        >>> class Client: client_id = 3
        >>> folder = Path(tempfile.mkdtemp())
        >>> with state_folder(folder):
        ...     ClientState(Client(), {"server-round": 1}).save("own", [np.ones(2)])
        >>> [str(path.relative_to(folder)) for path in folder.glob("*/*")]
        ['3/own-000001.state']
    """
    token = _folder.set(folder if folder is not None else _folder.get())
    try:
        yield
    finally:
        _folder.reset(token)


def prune_states(folder: Path, client_ids: Iterable[int], checkpoints: Collection[int]) -> None:
    """Remove the files that no resumed run can need: of each checkpoint's round, a client's newest until then stays.

    Args:
        folder: as in ``state_folder``; it need not exist.
        client_ids: whose files to look at; those of clients that saved nothing since the last time are as they were.
        checkpoints: rounds that a run can be resumed from. What is newer than all of them stays as well.

    Example:
        >>> import tempfile
        >>> class Client: client_id = 3
        >>> folder = Path(tempfile.mkdtemp())
        >>> with state_folder(folder):
        ...     for number in (1, 2, 3):
        ...         ClientState(Client(), {"server-round": number}).save("own", [np.ones(2)])
        >>> prune_states(folder, [3], checkpoints=[2])
        >>> len(list(folder.glob("3/*")))  # that of round 1 is gone
        2
    """
    if not checkpoints:
        return
    for client_id in client_ids:
        for versions in _versions(folder / str(client_id)).values():
            rounds = [saved for saved, _ in versions]
            needed = {max((r for r in rounds if r <= checkpoint), default=0) for checkpoint in checkpoints}
            for saved, path in versions:
                if saved not in needed and saved < max(checkpoints):
                    path.unlink()


def check_states(folder: Path, round: int) -> None:
    """Check that all that clients have kept until the end of a round is whole.

    Args:
        folder: as in ``state_folder``; it need not exist.
        round: whose end a run is to be resumed from.

    Raises:
        Damaged: a ``ValueError``, which says which client's file is cut off or changed.

    Example:
        >>> import tempfile
        >>> class Client: client_id = 3
        >>> folder = Path(tempfile.mkdtemp())
        >>> with state_folder(folder):
        ...     ClientState(Client(), {"server-round": 1}).save("own", [np.ones(2)])
        >>> check_states(folder, round=1)
        >>> _ = next(folder.glob("3/*")).write_bytes(b"cut")
        >>> try:
        ...     check_states(folder, round=1)
        ... except ValueError as damaged:
        ...     print(str(damaged)[:25])
        what client 3 has kept: o
    """
    for client in sorted(folder.glob("*/")):
        for versions in _versions(client).values():
            kept = [version for version in versions if version[0] <= round]
            try:
                if kept:
                    read_checked(max(kept)[1], _KIND)
            except Damaged as reason:
                raise Damaged(f"what client {client.name} has kept: {reason}") from None


def _versions(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Return {name: [(round, file)]} of one client's files."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob(f"*{_SUFFIX}"):
        name, _, saved = path.stem.rpartition("-")
        found.setdefault(name, []).append((int(saved), path))
    return found
