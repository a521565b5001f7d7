"""What goes to the terminal while a run is at work, and what to its log."""

import contextlib
import io
import logging
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
