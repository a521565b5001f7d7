"""Flower's commands without their start: a process that has imported everything forks one for each command.

A SuperNode starts a process for each message, which imports Flower, torch and the app: seconds, for a client that works
for milliseconds. ``fork_server`` puts a folder before ``PATH`` in which each command is a copy of this file. It hands
its arguments, environment and streams to the server, waits for the exit code, and lives as long as the command: who
ends the one ends the other. What runs is Flower's own command, in a process of its own; only its imports were made
before.
"""

import array
import contextlib
import json
import os
import signal
import socket
import sys

SOCKET = "FLSEC_FORK_SERVER"  # environment variable: where the server listens


def _hand_on() -> int:
    """Have the server run the command that this process was started as; return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[SOCKET])
        given = {"argv": sys.argv, "environment": dict(os.environ), "folder": os.getcwd()}
        request = json.dumps(given).encode()
        streams = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        server.sendmsg([len(request).to_bytes(4, "big")], streams)
        server.sendall(request)
        child = int.from_bytes(_exactly(server, 4), "big")
        with open(f"{os.environ[SOCKET]}.children", "a") as children:  # who stands for whom; see descendants
            children.write(f"{os.getpid()} {child}\n")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: _pass_on(child, received))
        return int.from_bytes(_exactly(server, 4), "big", signed=True)


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            raise SystemExit("the fork server has ended")
        data += more
    return data


if __name__ == "__main__" and os.path.basename(sys.argv[0]) != "_fork_server.py":
    raise SystemExit(_hand_on())  # before the imports below, which the copies do without

import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import selectors  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

__all__ = ["fork_server"]

COMMANDS = "console_scripts"  # the group of entry points that a package's commands stand in


@contextlib.contextmanager
def fork_server(folder: Path, modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start a server, and stop it, with all that it has forked; yield the environment in which commands use it.

    Args:
        folder: for its commands, its socket and its log; the path of a socket has at most some 100 characters.
        modules: what it imports before it forks.
        environment: of the server.
    """
    links, address = folder / "bin", folder / "fork.socket"
    links.mkdir(parents=True, exist_ok=True)
    for command in _commands():
        stand_in = links / command
        stand_in.write_text(f"#!{sys.executable} -IS\n{Path(__file__).read_text()}")
        stand_in.chmod(0o755)
    ready, told = os.pipe()
    call = [sys.executable, str(Path(__file__).resolve()), str(address), str(told), *modules]
    with (folder / "fork_server.log").open("wb") as log:
        server = subprocess.Popen(
            call, env=dict(environment), stdout=log, stderr=log, pass_fds=[told], start_new_session=True
        )
    os.close(told)
    try:
        if not os.read(ready, 1):
            raise RuntimeError(f"the fork server ended: {(folder / 'fork_server.log').read_text()[-2000:]}")
        yield {**environment, SOCKET: str(address), "PATH": os.pathsep.join([str(links), environment["PATH"]])}
    finally:
        os.close(ready)
        server.terminate()
        server.wait()


def _commands() -> dict[str, Any]:
    return {
        entry.name: entry
        for entry in importlib.metadata.entry_points(group=COMMANDS)
        if entry.value.startswith("flwr.")
    }


class _Server:
    """Fork a process for each request; report how it ends; end it when who asked for it is gone.

    Everything happens in one thread: a process that forks must have no other.
    """

    def __init__(self, address: str):
        self._commands = _commands()
        self._asking: dict[int, socket.socket] = {}  # who waits for which child
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve until told to stop."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._fork()
                elif key.fileobj == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    self._reap()
                else:
                    self._gone(key.fileobj)  # says nothing more: its end is all that can be heard

    def _fork(self) -> None:
        asking, _ = self._listener.accept()
        try:
            head, streams = _receive(asking)
            request = json.loads(_exactly(asking, int.from_bytes(head, "big")))
        except (OSError, SystemExit, ValueError):
            asking.close()
            return
        child = os.fork()
        if child == 0:
            self._run(request, streams)
        for stream in streams:
            os.close(stream)
        self._asking[child] = asking
        self._selector.register(asking, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            asking.sendall(child.to_bytes(4, "big"))

    def _run(self, request: dict[str, Any], streams: Sequence[int]) -> None:
        """Be the command."""
        code = 1
        try:
            self._forget()
            os.setsid()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.argv = request["argv"]
            command: Callable[[], Any] = self._commands[Path(sys.argv[0]).name].load()
            result = command()
            code = result if isinstance(result, int) else 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _forget(self) -> None:
        """Leave the server's sockets and signals to the server."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        self._selector.close()
        self._listener.close()
        os.close(self._woken)
        for asking in self._asking.values():
            asking.close()

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            asking = self._asking.pop(child, None)
            if asking is not None:
                with contextlib.suppress(OSError):
                    asking.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
                self._close(asking)

    def _gone(self, asking: Any) -> None:
        for child, other in list(self._asking.items()):
            if other is asking:
                _pass_on(child, signal.SIGKILL)
                del self._asking[child]
        self._close(asking)

    def _close(self, asking: socket.socket) -> None:
        self._selector.unregister(asking)
        asking.close()

    def _stop(self, *_: object) -> None:
        for child in self._asking:
            _pass_on(child, signal.SIGKILL)
        raise SystemExit


def _receive(asking: socket.socket) -> tuple[bytes, list[int]]:
    head, extra, _, _ = asking.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    for _, _, data in extra:
        streams.frombytes(data[: len(data) - len(data) % streams.itemsize])
    if len(streams) != 3:
        raise ValueError("no streams")
    return head, list(streams)


if __name__ == "__main__":
    for _module in sys.argv[3:]:
        importlib.import_module(_module)
    for _command in _commands().values():
        if _command.name in (
            "flwr",
            "flower-superlink",
            "flower-supernode",
            "flower-superexec",
            "flwr-clientapp",
            "flwr-serverapp",
        ):
            _command.load()
    _server = _Server(sys.argv[1])
    os.write(int(sys.argv[2]), b"+")
    os.close(int(sys.argv[2]))
    _server.serve()
