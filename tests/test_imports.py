"""The pure rooms cost no Flower and no Ray; imports go one way, in no circle; classes and functions stay short."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import flsec

PURE = ("flsec", "flsec.aggregation", "flsec.attacks", "flsec.reconstruction", "flsec.data", "flsec.models")
PURE += ("flsec.tasks", "flsec.data.datasets", "flsec.data.partitioners")
PURE += ("flsec.metrics", "flsec.randomness", "flsec.parameters", "flsec.training")
SHOW = "print(sorted({name.partition('.')[0] for name in sys.modules} & {'flwr', 'ray'}))"


def imported_by(*modules):
    """Which of Flower and Ray are imported by all that the modules export; packages import lazily."""
    code = "\n".join(["import sys", *(f"from {module} import *" for module in modules), SHOW])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_pure_rooms_import_neither_flower_nor_ray():
    assert imported_by(*PURE) == "[]"


def test_flsec_alone_imports_no_torch():
    code = "import sys, flsec; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_question_has_another_answer_elsewhere():
    assert imported_by("flsec.strategies") == "['flwr']"


# --- who imports whom, read from the source ----------------------------------------------------------------------

ROOMS = [  # from the top; those in one line may import each other, in no circle
    {"simulations", "testing", "_contracts", "_new"},
    {"strategies"},
    {"client_apps"},
    {"aggregation", "attacks", "reconstruction", "data", "models", "metrics"},
    {"training"},  # which asks tasks for their loss
    {"tasks"},
]
FLOOR = len(ROOMS)  # modules such as errors and parameters, which know no room
LONGEST_CLASS, LONGEST_FUNCTION = 250, 75  # lines; of functions without the docstring


@cache
def sources():
    root = Path(flsec.__file__).parent
    names = {path: ".".join(("flsec", *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for path, name in names.items()}


def at_import(nodes):
    """The statements that run when the module is imported."""
    for node in nodes:
        yield node
        if isinstance(node, ast.If):
            checking = "TYPE_CHECKING" in ast.unparse(node.test)
            yield from at_import([*([] if checking else node.body), *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from at_import([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from at_import(node.body)


def imported(nodes, known):
    """The modules of flsec that these statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module


def circle(modules):
    """One circle of imports, or None."""
    graph = {name: set(imported(at_import(tree.body), modules)) - {name} for name, tree in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def height(module):
    room = module.partition(".")[2].partition(".")[0]
    return next((place for place, rooms in enumerate(ROOMS) if room in rooms), FLOOR)


def upward(modules):
    """(importer, imported) of every import, also those inside functions, that leads to a higher room."""
    return [
        (name, target)
        for name, tree in modules.items()
        for target in imported(ast.walk(tree), modules)
        if height(target) < height(name)
    ]


def too_long(modules):
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and lines(node) > LONGEST_CLASS:
                yield f"{name}.{node.name}"
            if isinstance(node, ast.FunctionDef) and lines(node) - docstring_lines(node) > LONGEST_FUNCTION:
                yield f"{name}.{node.name}"


def lines(node):
    return node.end_lineno - node.lineno + 1


def docstring_lines(node):
    return lines(node.body[0]) if ast.get_docstring(node) is not None else 0


def test_no_circle():
    assert circle(sources()) is None


def test_no_arrow_upwards():
    assert upward(sources()) == []


def test_no_class_and_no_function_is_too_long():
    assert list(too_long(sources())) == []


def test_every_room_is_there_to_be_checked():
    found = {name.split(".")[1] for name in sources() if "." in name}
    assert set().union(*ROOMS[:3]) <= found
    assert len(found & ROOMS[3]) >= 6  # some names are for rooms to come


BELOW, ABOVE = "from flsec.client_apps.base import Attack", "from flsec.strategies.base import Base"


@pytest.mark.parametrize("upper", ["", "if x:\n    ", "try:\n    1\nexcept E:\n    ", "class A:\n    "])
def test_circles_and_arrows_are_found(upper):
    above, below = ast.parse(BELOW), ast.parse(upper + ABOVE)
    modules = {"flsec.strategies.base": above, "flsec.client_apps.base": below}
    assert set(circle(modules)) == set(modules)
    assert upward(modules) == [("flsec.client_apps.base", "flsec.strategies.base")]
    one_way = {**modules, "flsec.client_apps.base": ast.parse("")}
    assert circle(one_way) is None
    assert upward(one_way) == []


@pytest.mark.parametrize("hidden", ["def f():\n    ", "if TYPE_CHECKING:\n    "])
def test_what_does_not_run_at_import_makes_no_circle_but_points_upwards(hidden):
    modules = {"flsec.strategies.base": ast.parse(BELOW), "flsec.client_apps.base": ast.parse(hidden + ABOVE)}
    assert circle(modules) is None
    assert upward(modules) == [("flsec.client_apps.base", "flsec.strategies.base")]


def test_long_ones_are_found():
    body = "    1\n" * LONGEST_FUNCTION
    tree = ast.parse(f"def f():\n{body}def g():\n    '''\n{body}    '''\nclass C:\n{body * 4}")
    assert list(too_long({"flsec.m": tree})) == ["flsec.m.f", "flsec.m.C"]
