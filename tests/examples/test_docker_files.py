"""The container files cannot be built here; that what they say fits together and fits Flower is checked."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "examples/deployment/docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
NODES = {name: service for name, service in COMPOSE["services"].items() if name.startswith("supernode-")}


@pytest.mark.parametrize("command", ["flower-superlink", "flower-supernode"])
def test_flags_are_those_of_flowers_commands(command):
    printed = subprocess.run(
        [str(Path(sys.executable).with_name(command)), "--help"], capture_output=True, text=True, check=True
    ).stdout
    services = NODES.values() if command == "flower-supernode" else [COMPOSE["services"]["superlink"]]
    given = {word for service in services for word in shlex.split(service["command"]) if word.startswith("--")}
    assert given
    assert given <= set(re.findall(r"--[a-z-]+", printed))


def test_each_node_has_its_own_partition_and_key():
    said = [shlex.split(service["command"])[-1] for service in NODES.values()]
    assert said == [f"partition-id={i} num-partitions={len(NODES)}" for i in range(len(NODES))]
    keys = [next(v for v in service["volumes"] if "/keys/" in v) for service in NODES.values()]
    assert len(set(keys)) == len(NODES) == 6


def test_targets_and_copied_files_exist():
    targets = set(re.findall(r" AS (\w+)", DOCKERFILE))
    builds = [service["build"] for service in COMPOSE["services"].values()]
    assert {build["target"] for build in builds} == targets
    for build in builds:
        context = (FOLDER / build["context"]).resolve()
        assert (context / build["dockerfile"]).is_file()
        copied = {word for line in re.findall(r"^COPY --\S+ (.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
        assert copied
        assert all((context / name).exists() for name in copied)
