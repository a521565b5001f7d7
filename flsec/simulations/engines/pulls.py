"""Replies of a deployment, fetched one by one, so that none can keep the server from the others."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["Pulls"]

_GRACE = 1.0  # seconds in which a reply that is there is fetched, as a rule

Reply = Message | str | None  # what came; why it cannot be read; or nothing yet


class Pulls:
    """Fetch replies from Flower's grid.

    Flower reads all that has come in one go: a single reply whose bytes make no sense takes the others with it, and for
    one whose sender has died in the middle of it Flower waits three minutes. So each is fetched by itself, and those
    that take long in threads of their own. As long as none does there is one thread at a time.

    Args:
        grid: Flower's, which may be used from several threads.
    """

    def __init__(self, grid: Grid):
        self._grid = grid
        self._running: dict[str, Future[Reply]] = {}

    def fetch(self, message_id: str) -> Reply:
        """Return the reply to a message, why it cannot be read, or None if it has not come or takes long.

        Raises:
            Exception: the SuperLink cannot be reached.
        """
        running = self._running.get(message_id)
        if running is None:
            running = self._running[message_id] = Future()
            threading.Thread(target=self._pull, args=(message_id, running), daemon=True).start()
            patience = _GRACE
        else:
            patience = 0.0
        try:
            reply = running.result(patience)
        except TimeoutError:
            if not running.done():
                return None
            raise
        finally:
            if running.done():
                self._running.pop(message_id, None)
        return reply

    def forget(self, message_ids: Iterable[str]) -> None:
        """Give up what has not come."""
        for message_id in message_ids:
            self._running.pop(message_id, None)

    def _pull(self, message_id: str, result: "Future[Reply]") -> None:
        try:
            result.set_result(next(iter(self._grid.pull_messages([message_id])), None))
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("httpx", "httpcore", "grpc"):
                result.set_exception(error)
            else:
                result.set_result(f"its reply cannot be read: {type(error).__name__}: {error}")
