"""What packages export: always the function and never the module of its name, with its type, and by no list by hand."""

import ast
import importlib
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from unittest import mock

import cloudpickle
import pytest

import flsec.aggregation
import flsec.client_apps
from flsec import _exports
from flsec.aggregation import krum
from flsec.registry import Registry

PACKAGES = [".".join(init.parent.relative_to(_exports.ROOT.parent).parts) for init in _exports.packages()]

ORDERS = {
    "package": "import flsec.aggregation",
    "module": "import flsec.aggregation.krum",
    "from module": "from flsec.aggregation.krum import krum_scores",
    "from package": "from flsec.aggregation import krum",
    "another module that uses it": "import flsec.aggregation.multi_krum",
    "importlib": "import importlib; importlib.import_module('flsec.aggregation.krum')",
    "star": "from flsec.aggregation import *",
    "submodule under another name": "import flsec.aggregation.krum as m",
    "asked for, then the module": "import flsec.aggregation; flsec.aggregation.krum; import flsec.aggregation.krum",
    "registry": "from flsec.strategies import DEFENSES; DEFENSES.names()",
    "reloaded package": "import importlib, flsec.aggregation.krum; importlib.reload(flsec.aggregation)",
    "reloaded module": "import flsec.aggregation.krum, importlib, sys\n"
    "importlib.reload(sys.modules['flsec.aggregation.krum'])",
}
IS_THE_FUNCTION = """
import sys, flsec.aggregation
from flsec.aggregation import krum
module = sys.modules["flsec.aggregation.krum"]
assert krum is module.krum is flsec.aggregation.krum, krum
assert callable(flsec.aggregation.krum)
import flsec.aggregation.krum
import flsec.aggregation.krum as same
assert flsec.aggregation.krum is module.krum is same
"""
EACH_ANEW = """
import json, sys, torch
for order, code in json.load(sys.stdin).items():
    for name in [name for name in sys.modules if name.partition(".")[0] == "flsec"]:
        del sys.modules[name]
    try:
        exec(code, {"__name__": "__main__"})
    except Exception as error:
        print(order, repr(error))
"""


def each_anew(codes: dict[str, str]) -> str:
    """Run pieces of code in one process, flsec imported anew for each; return which failed."""
    given = json.dumps(codes)
    command = [sys.executable, "-c", EACH_ANEW]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def test_the_function_of_a_module_s_name_is_found_whatever_was_imported_before() -> None:
    assert each_anew({order: f"{code}\n{IS_THE_FUNCTION}" for order, code in ORDERS.items()}) == ""
    assert each_anew({"broken": f"{IS_THE_FUNCTION}\nassert krum is module"}) == "broken AssertionError()\n"


@pytest.mark.parametrize("package", PACKAGES)
def test_all_that_is_exported_is_there(package: str) -> None:
    module = importlib.import_module(package)
    members = dict(inspect.getmembers(module))
    for name in module.__all__:
        assert members[name] is getattr(module, name)
        assert not inspect.ismodule(members[name])
    assert set(module.__all__) <= set(dir(module))


def test_functions_and_classes_pickle_and_so_does_the_package() -> None:
    for value in (krum, flsec.client_apps.SignFlipping, flsec.aggregation.CountSketch, flsec.aggregation):
        for by in (pickle, cloudpickle):
            assert pickle.loads(by.dumps(value)) is value


def test_a_function_that_uses_the_package_can_be_sent_to_a_worker() -> None:
    namespace = {"__name__": "__main__", "aggregation": flsec.aggregation}
    exec("def rule(): return aggregation.krum", namespace)
    assert pickle.loads(cloudpickle.dumps(namespace["rule"]))() is krum


def test_patches_are_seen_and_leave_nothing_behind() -> None:
    with mock.patch("flsec.aggregation.krum.krum", "in the module"):
        assert flsec.aggregation.krum == "in the module"
    assert flsec.aggregation.krum is krum
    with mock.patch("flsec.aggregation.krum", "in the package"):
        assert flsec.aggregation.krum == "in the package"
        importlib.import_module("flsec.aggregation.krum")
        assert flsec.aggregation.krum == "in the package"
    assert flsec.aggregation.krum is krum
    with mock.patch.object(flsec.aggregation, "krum", "in the package"):
        from flsec.aggregation import krum as patched

        assert patched == "in the package"
    assert flsec.aggregation.krum is krum
    assert "krum" not in vars(flsec.aggregation)


def test_a_reloaded_module_is_seen_in_the_package() -> None:
    code = "import importlib, sys; from flsec.aggregation import krum; import flsec.aggregation\n"
    code += "importlib.reload(sys.modules['flsec.aggregation.krum'])\n"
    code += "assert flsec.aggregation.krum is not krum and flsec.aggregation.krum.__name__ == 'krum'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_exported_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"'flsec\.aggregation' has no attribute 'krumm'"):
        _ = flsec.aggregation.krumm
    with pytest.raises(ImportError, match="krumm"):
        exec("from flsec.aggregation import krumm")


def test_type_checkers_know_types_and_names(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import flsec.aggregation\n"
        "import flsec.strategies\n"
        "from flsec.aggregation import CountSketch, krum\n"
        "from flsec.client_apps import ATTACKS, Adversaries, SignFlipping\n"
        "reveal_type(krum)\n"
        "reveal_type(flsec.strategies.Krum)\n"
        "reveal_type(ATTACKS)\n"
        "flsec.aggregation.nonsense\n"
        "from flsec.models import Nonsense\n"
        "krum(3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(tmp_path / "user.py")]
    result = subprocess.run(command, cwd=_exports.ROOT.parent, capture_output=True, text=True, check=False)
    said = [line for line in result.stdout.splitlines() if "user.py:" in line]
    assert [line.split(":")[1] for line in said] == ["5", "6", "7", "8", "9", "10", "10"], result.stdout + result.stderr
    assert 'Revealed type is "def (updates: torch._tensor.Tensor, num_byzantine:' in said[0]
    assert "flsec.strategies.krum.Krum" in said[1]
    assert "flsec.registry.Registry" in said[2]
    assert 'has no attribute "nonsense"' in said[3]
    assert 'has no attribute "Nonsense"' in said[4]


def test_pytest_finds_doctests_and_runs_them_on_the_right_objects() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "flsec/aggregation/krum.py"]
    command += ["flsec/aggregation/__init__.py", "flsec/data"]
    result = subprocess.run(command, cwd=_exports.ROOT.parent, capture_output=True, text=True, check=True)
    found = [line for line in result.stdout.splitlines() if "::" in line]
    assert "flsec/aggregation/krum.py::flsec.aggregation.krum.krum" in found
    assert "flsec/data/build.py::flsec.data.build.load_dataset" in found
    assert len(found) == len(set(found))


# --- the script ---


def test_exports_are_up_to_date() -> None:
    old = [str(path.relative_to(_exports.ROOT.parent)) for path in _exports.outdated()]
    assert not old, f"run: {_exports.COMMAND}"


def test_every_package_that_has_modules_to_export_takes_part() -> None:
    assert {"flsec.aggregation", "flsec.client_apps", "flsec.data.datasets", "flsec.strategies"} <= set(PACKAGES)
    assert len(PACKAGES) >= 10


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A package with one module."""
    package = tmp_path / "toy"
    package.mkdir()
    (package / "one.py").write_text('__all__ = ["one", "two"]\n\ndef one(): return 1\n\ndef two(): return 2\n')
    (package / "__init__.py").write_text(
        '"""By hand."""\n\nfrom typing import TYPE_CHECKING\n\nfrom flsec._lazy import export_lazily\n\n'
        f"KEPT = 1\n\n{_exports.BEGIN}{_exports.END}"
    )
    for path, text in _exports.outdated(package).items():
        path.write_text(text)
    return package


def in_toy(package: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{code}"],
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_a_new_file_is_exported_and_the_part_by_hand_is_kept(toy: Path) -> None:
    assert not _exports.outdated(toy)
    (toy / "three.py").write_text('__all__ = ["THREE", "Three"]\nTHREE = 3\nclass Three: pass\n')
    (toy / "_private.py").write_text('__all__ = ["four"]\n')
    [(init, text)] = _exports.outdated(toy).items()
    assert ast.literal_eval(text.partition("__all__ = ")[2].partition("\n\n")[0]) == [
        "KEPT", "THREE", "Three", "one", "two"]  # fmt: skip
    assert text.startswith('"""By hand."""')
    assert "KEPT = 1" in text
    init.write_text(text)
    assert not _exports.outdated(toy)
    result = in_toy(toy, "import toy.one, toy; assert (toy.one(), toy.THREE, toy.KEPT) == (1, 3, 1)")
    assert result.returncode == 0, result.stderr


def test_modules_with_numbers_stand_in_the_order_that_ruff_wants(toy: Path) -> None:
    for number in (101, 9):
        (toy / f"net{number}.py").write_text(f'__all__ = ["Net{number}"]\nclass Net{number}: pass\n')
    [text] = _exports.outdated(toy).values()
    assert text.index("from toy.net9 import") < text.index("from toy.net101 import")


def test_who_forgets_the_script_is_still_found_by_registries(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy / "forgotten.py").write_text('__all__ = ["forgotten"]\n\ndef forgotten(): return 1\n')
    monkeypatch.syspath_prepend(str(toy.parent))
    try:
        assert Registry("number", "toy").names() == ["forgotten", "one", "two"]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
            del sys.modules[name]


def test_a_circle_and_an_old_list_say_what_to_do(toy: Path) -> None:
    (toy / "one.py").write_text('from toy import two\n__all__ = ["one", "two"]\n')
    assert "import from the module, not from the package" in in_toy(toy, "import toy.one").stderr
    (toy / "one.py").write_text('__all__ = ["one"]\n\ndef one(): return 1\n')
    assert "run `python -m flsec._exports`" in in_toy(toy, "from toy import two").stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('__all__ = ["two"]\n', "more.py and one.py both export 'two'"),
        ("__all__ = [*range(3)]\n", "must be a plain list"),
        ('__all__ = ["KEPT"]\n', "defines 'KEPT', which more.py exports"),
    ],
)
def test_what_cannot_be_exported_is_refused(toy: Path, text: str, says: str) -> None:
    (toy / "more.py").write_text(text)
    with pytest.raises(SystemExit, match=says):
        _exports.outdated(toy)


def test_a_lost_marker_is_refused(toy: Path) -> None:
    init = toy / "__init__.py"
    init.write_text(init.read_text().replace(_exports.END, ""))
    with pytest.raises(SystemExit, match="End of exports"):
        _exports.outdated(toy)


def test_the_check_fails_with_the_command_to_run_and_imports_nothing(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_exports, "ROOT", toy)
    monkeypatch.setattr(_exports, "outdated", lambda found=_exports.outdated: found(toy))
    assert _exports.main(["--check"]) == 0
    (toy / "more.py").write_text('__all__ = ["more"]\nraise RuntimeError("imported")\n')
    assert _exports.main(["--check"]) == 1
    assert "run: python -m flsec._exports" in capsys.readouterr().out
    assert _exports.main([]) == 0
    assert _exports.main(["--check"]) == 0
    code = "import sys, flsec._exports; flsec._exports.outdated(); print({'torch', 'numpy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
