"""What imports what among the simulation's files: no circle, and the same direction between rooms."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "flsec" / "simulations"


def imports() -> dict[str, set[str]]:
    found = {}
    for file in ROOT.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flsec.simulations"):
                base = node.module.removeprefix("flsec.simulations").removeprefix(".")
                names |= {f"{base}.{alias.name}".strip(".") for alias in node.names} | {base}
        found[".".join(file.relative_to(ROOT).with_suffix("").parts)] = names
    return {name: {other for other in names if other in found} for name, names in found.items()}


def test_no_file_imports_itself_by_way_of_others():
    graph = imports()
    assert "checks" in graph["config"]
    for start in graph:
        seen, waiting = set(), set(graph[start])
        while waiting:
            seen |= waiting
            waiting = {other for name in waiting for other in graph[name]} - seen
        assert start not in seen


def test_rooms_do_not_know_those_that_use_them():
    for name, others in imports().items():
        if name.startswith("engines."):
            assert not {other for other in others if other.startswith("studies.") or other in ("engine", "cli")}, name
        if "." not in name and name not in (
            "check",
            "cli",
            "doctor",
            "engine",
            "figure",
            "json_schema",
            "leaderboard",
            "report",
        ):  # commands, and what they do
            assert not {other for other in others if "." in other}, name


def test_only_one_file_starts_flowers_simulation():
    assert [file.name for file in ROOT.rglob("*.py") if "import run_simulation" in file.read_text()] == [
        "flower_simulation.py"
    ]


def test_experiments_claims_and_boards_are_in_one_folder_each():
    assert {file.relative_to(ROOT).parts[0] for file in ROOT.rglob("*.yaml")} == {
        "experiments",
        "claims",
        "boards",
    }


def test_no_class_is_longer_than_250_lines():
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 250, f"{file.name}: {node.name}"
