"""One SuperLink with TLS and SuperNode authentication, and five SuperNodes, for all tests of deployments."""

import os
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from examples._deployment import Deployment

CLIENTS = 5
ROOT = Path(__file__).resolve().parents[2]
APP = """\
[project]
name = "tested"
version = "1.0.0"
description = "flsec's apps, with clients that may misbehave."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "flsec"

[tool.flwr.app.components]
serverapp = "flsec.simulations.engines.flower_app:server_app"
clientapp = "tests.support.deployed_app:client_app"

[tool.flwr.app.config]
experiment = "quickstart"
set = ""
resume = ""
behaviour = ""
"""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Mark what is here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.deployment)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    if tuple(map(int, metadata.version("flwr").split(".")[:2])) < (1, 42):
        pytest.skip("the commands of Flower before 1.42 have other options")
    folder = tmp_path_factory.mktemp("d")
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    preload = ["tests.support.warm", "tests.support.deployed_app"]
    with Deployment(folder, {"PYTHONPATH": python_path}, preload) as started:
        for partition in (2, 0, 4, 1, 3):  # an order that says nothing
            started.start_node(f"node-{partition}", partition_id=partition, num_partitions=CLIENTS)
        families = [started.family(started.superlink), *(started.family(n.process) for n in started.nodes.values())]
        yield started
    left = [pid for family in families for pid in family]
    deadline = time.monotonic() + 20.0  # on a busy machine they take a moment to go
    while (left := [pid for pid in left if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == [], f"processes that go on after the end: {left}"
    assert _command_lines(str(folder)) == []


def _command_lines(word: str) -> list[bytes]:
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes()
        except OSError:
            continue
        if word.encode() in line:
            lines.append(line)
    return lines


@pytest.fixture(scope="module")
def app(deployment: Deployment) -> Path:
    folder = deployment.folder / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(APP)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; SuperNodes and ServerApps have OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
