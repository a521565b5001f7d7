"""A real deployment on loopback: a SuperLink with TLS and SuperNode authentication, and SuperNodes as processes.

``with Deployment(folder) as deployment`` starts the SuperLink; ``start_node`` registers a key and starts a SuperNode;
``flwr`` is Flower's command line on that SuperLink. Everything that was started is ended by its process id, and so is
whatever these processes have started, also after an error.
"""

import contextlib
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from examples._fork_server import fork_server

__all__ = ["Deployment", "Node", "descendants", "free_port", "wait_until"]

HOST = "127.0.0.1"
START = 60.0  # seconds that a process may take to be there
END = 15.0  # seconds that one may take to end when it is told to


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def descendants(*ancestors: int, adopted: Path | None = None) -> set[int]:
    """Return those of the processes that live, and all that they and their children have started.

    Args:
        ancestors: process ids.
        adopted: a file with pairs of process ids, a line each: the second was started for the first; it need not exist.
    """
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
    if adopted is not None and adopted.is_file():
        pairs = (map(int, line.split()) for line in adopted.read_text().splitlines())
        parents.update({child: parent for parent, child in pairs if child in parents})
    found = {pid for pid in ancestors if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(true: Callable[[], Any], what: str, patience: float = START, pause: float = 0.1) -> Any:
    """Return the first result that counts as true; raise ``TimeoutError`` if there is none in ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not (result := true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience:.0f} s")
        time.sleep(pause)
    return result


def _write_certificates(folder: Path) -> None:
    """Write an authority's certificate, ca.crt, and this machine's, which it has signed: server.pem and .key."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: Any, issuer: str, signing_key: Any, *, authority: bool) -> x509.Certificate:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(signing_key, hashes.SHA256())
        )

    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate("test authority", authority_key, "test authority", authority_key, authority=True)
    server = certificate("localhost", server_key, "test authority", authority_key, authority=False)
    (folder / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "server.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@dataclass
class Node:
    """A SuperNode: its key stays the same when it is started again.

    Attributes:
        name: of its key and its log.
        process: the SuperNode.
    """

    name: str
    process: "subprocess.Popen[bytes]"


class Deployment:
    """A SuperLink with TLS and SuperNode authentication on loopback, and SuperNodes.

    Args:
        folder: where certificates, keys, logs and Flower's own files go.
        environment: variables for all processes, in addition to this process's.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, preload: Sequence[str] = ()):
        self.folder = folder.resolve()
        self._preload = preload
        self._stack = contextlib.ExitStack()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.nodes: dict[str, Node] = {}
        self.superlink: subprocess.Popen[bytes] | None = None
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "FLWR_HOME": str(self.folder / "flwr"),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # take what is installed, without a network
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.4",  # seconds; Flower's default is 1
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }

    def __enter__(self) -> "Deployment":
        """Start the SuperLink."""
        _write_certificates(self.folder)
        if self._preload:
            self.environment = self._stack.enter_context(fork_server(self.folder, self._preload, self.environment))
        home = Path(self.environment["FLWR_HOME"])
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{HOST}:{self.port}"\n'
            f'root-certificates = "{self.folder / "ca.crt"}"\n'
        )
        command = ["flower-superlink", "--enable-supernode-auth", "--isolation", "subprocess"]
        command += ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
        command += ["--host", HOST, "--port", str(self.port)]
        self.superlink = self._start(command, "superlink")
        try:
            wait_until(lambda: self._listens(), "the SuperLink listens")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End the SuperNodes and the SuperLink, and what they have started."""
        self._end(*(node.process for node in self.nodes.values()), *([self.superlink] if self.superlink else []))
        self._stack.close()

    def stop(self, node: Node) -> None:
        """End a SuperNode as its operator does: it says goodbye."""
        self._end(node.process)

    def kill(self, node: Node) -> None:
        """End a SuperNode and its client at once, as a power cut does."""
        _kill(self.family(node.process))
        node.process.wait()

    def family(self, process: "subprocess.Popen[bytes]") -> set[int]:
        """Return the ids of a process and of all that it has started and that still runs."""
        return descendants(process.pid, adopted=self.folder / "fork.socket.children")

    def _end(self, *processes: "subprocess.Popen[bytes]") -> None:
        families = [self.family(process) for process in processes]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + END
        for process, family in zip(processes, families, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _kill(family)
            process.wait()

    def _listens(self) -> bool:
        assert self.superlink is not None
        if self.superlink.poll() is not None:
            raise RuntimeError(f"the SuperLink ended: {self.log('superlink')[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _start(self, command: list[str], name: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        """Return what the SuperLink (``"superlink"``) or a node, by its name, has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # --- SuperNodes -------------------------------------------------------------------------------------------

    def start_node(self, name: str, **config: Any) -> Node:
        """Start a SuperNode with this name's key, which is made and registered when it is new.

        Args:
            name: of the key and of the log.
            config: what stands in ``--node-config``; underscores become hyphens.
        """
        if not (key := self.folder / f"{name}.key").is_file():
            self._register(name, key)
        said = [f"{option.replace('_', '-')}={json.dumps(value)}" for option, value in config.items()]
        command = ["flower-supernode", "--superlink", f"{HOST}:{self.port}", "--root-certificates", "ca.crt"]
        command += ["--auth-supernode-private-key", str(key), "--host", HOST, "--port", str(free_port())]
        command += ["--node-config", " ".join(said)]
        node = self.nodes[name] = Node(name, self._start(command, name))
        return node

    def restart(self, node: Node, patience: float = 120.0) -> None:
        """Start a SuperNode that was killed again, with its key, as a service manager does: until it stays.

        The SuperLink refuses it for as long as it takes the old one for connected, up to a minute.
        """
        command, log = [str(part) for part in node.process.args], len(self.log(node.name))  # type: ignore[union-attr]

        def stays() -> bool:
            if node.process.poll() is not None:
                node.process = self._start(command, node.name)
            return "SuperNode ID" in self.log(node.name)[log:]

        wait_until(stays, f"{node.name} is connected again", patience, pause=2.0)

    def _register(self, name: str, path: Path) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        )
        public = path.with_suffix(".pub")
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        )
        self.flwr("supernode", "register", str(public))

    # --- Flower's command line --------------------------------------------------------------------------------

    def flwr(self, *arguments: str, patience: float = 120.0) -> str:
        """Run ``flwr`` and return what it printed; ``RuntimeError`` if it failed."""
        done = subprocess.run(
            ["flwr", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=patience,
        )
        if done.returncode:
            raise RuntimeError(f"flwr {arguments[0]} failed: {done.stdout} {done.stderr}")
        return done.stdout

    def submit(self, app: Path, **run_config: str | int | float | bool) -> int:
        """Start a run of the app in this folder; return its id."""
        settings = [f"{name}={json.dumps(value)}" for name, value in run_config.items()]
        printed = self.flwr("run", str(app), *(["-c", " ".join(settings)] if settings else []))
        found = re.search(r"run (\d+)", printed)
        if found is None:
            raise RuntimeError(f"flwr run names no run: {printed}")
        return int(found[1])

    def wait_for(self, *run_ids: int, patience: float = 300.0) -> dict[int, dict[str, Any]]:
        """Return what Flower knows of runs when all of them have ended."""

        def ended() -> dict[int, dict[str, Any]]:
            runs = {run_id: run for run_id, run in self.runs().items() if run_id in run_ids}
            return runs if all(run["status"].startswith("finished") for run in runs.values()) else {}

        found: dict[int, dict[str, Any]] = wait_until(ended, f"runs {run_ids} end", patience, pause=2.0)
        return found

    def runs(self) -> dict[int, dict[str, Any]]:
        """Return what Flower knows of each run, by id."""
        listed: dict[str, Any] = json.loads(self.flwr("ls", "--format", "json"))
        return {int(run["run-id"]): run for run in listed["runs"]}
