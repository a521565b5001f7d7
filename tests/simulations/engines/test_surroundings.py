"""What goes to the terminal while a run is at work, and what to its log."""

import contextlib
import io
import logging
import re
import subprocess
import sys

import pytest

from flsec.simulations.engines.surroundings import logged, starting_ray


def as_if_in(module, text, stream="stdout"):
    """Print as a function of that module does."""
    code = f"import sys\ndef say(): print({text!r}, file=sys.{stream})"
    names = {"__name__": module}
    exec(code, names)
    names["say"]()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_ray_and_flower_print_is_logged_and_all_else_is_printed(tmp_path, stream):
    printed = io.StringIO()
    redirect = contextlib.redirect_stdout if stream == "stdout" else contextlib.redirect_stderr
    with redirect(printed):
        before = getattr(sys, stream)
        with logged(tmp_path / "run.log", verbose=False):
            as_if_in("ray._private.worker", "\x1b[33m(raylet)\x1b[0m A worker died", stream)
            as_if_in("flwr.simulation", "(ClientAppActor) is late", stream)
            as_if_in("rayon.of.somebody", "their own", stream)
            print("mine", file=getattr(sys, stream))
        assert getattr(sys, stream) is before
        print("after", file=before)
    assert printed.getvalue() == "their own\nmine\nafter\n"
    log = (tmp_path / "run.log").read_text()
    assert "(raylet) A worker died" in log
    assert "ClientAppActor" in log
    assert "\x1b" not in log


def test_print_is_ones_own_also_where_ray_has_put_its_own_in_its_place(tmp_path, monkeypatch):
    from ray.experimental import tqdm_ray

    monkeypatch.setattr("builtins.print", tqdm_ray.safe_print)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), logged(tmp_path / "run.log", verbose=False):
        print("mine")
        as_if_in("ray._private.worker", "theirs")
    assert printed.getvalue() == "mine\n"
    assert "theirs" in (tmp_path / "run.log").read_text()


WARNS = """
import pathlib, warnings
from flsec.simulations.engines.surroundings import logged
with logged(pathlib.Path("run.log"), verbose=False):
    for module in ("ray.worker", "rayon"):
        exec(f"import warnings; warnings.warn('of {module}')", {"__name__": module})
"""


def test_what_ray_warns_of_is_logged_too(tmp_path):
    done = subprocess.run([sys.executable, "-c", WARNS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "of ray.worker" in (tmp_path / "run.log").read_text()
    assert "of rayon" in done.stderr
    assert "of ray.worker" not in done.stderr


def test_ray_s_own_level_does_not_hide_what_it_prints(tmp_path):
    with logged(tmp_path / "run.log", verbose=False):
        logging.getLogger("ray").setLevel(logging.ERROR)  # as ray.init does
        as_if_in("ray", "a node is full")
    assert "a node is full" in (tmp_path / "run.log").read_text()


def test_a_stream_outlives_what_stood_before_it(tmp_path, capsys):
    import gc

    with logged(tmp_path / "run.log", verbose=False):
        held = sys.stdout
    del held
    gc.collect()
    print("still open")
    assert capsys.readouterr().out == "still open\n"


@pytest.mark.parametrize("verbose", [False, True])
def test_the_terminal_says_once_that_ray_starts_and_how_long_it_took(tmp_path, capsys, verbose):
    with logged(tmp_path / "run.log", verbose=verbose), starting_ray("Then more."):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Starting Ray ...")
    assert "Ray has started (0.0 s). Then more." in lines[1]


KILLED = """
import os
from flsec.client_apps import Attack

class Killer(Attack):
    def poison_update(self, global_, local, context):
        os._exit(1)
"""
EXPERIMENT = """
data: {name: digits, subset: 200}
model: {name: softmax}
training: {learning_rate: 0.1}
defenses: [{name: median}]
attacks: [{name: "killed:Killer"}]
adversaries: {count: 1}
simulation: {engine: flower, num_clients: 4, num_rounds: 1}
"""


def test_no_line_of_ray_or_flower_comes_to_the_terminal_even_if_a_worker_dies(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    (tmp_path / "run.yaml").write_text(EXPERIMENT)
    command = [sys.executable, "-c", "from flsec.simulations.cli import main; main()", "run", "run.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "runs/run/run.log").read_text()
    assert "raylet" in log  # that the worker died
    started, lines = re.compile(r"Ray has started \(\d+\.\d s\)"), done.stderr.splitlines()
    assert lines[0] == "Starting Ray ..."
    assert started.match(lines[1])
    assert all(line.startswith(("WARNING: ", "round 1/1")) for line in lines[2:]), done.stderr
    assert not {"raylet", "ClientAppActor", "pid="} & set(re.findall(r"raylet|ClientAppActor|pid=", done.stdout))
