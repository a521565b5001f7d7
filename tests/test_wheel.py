"""The wheel holds all that flsec needs, and works where this checkout is not.

Its dependencies come from this environment, since a second copy of them takes gigabytes: a path file of a new, empty
environment names their folder. flsec itself must come from the wheel, which is looked at.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import flsec

ROOT = Path(__file__).parent.parent
build = pytest.importorskip("build", reason="needs the extra release")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "flsec", source / "flsec", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = (file for file in (ROOT / "flsec").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    wanted = {file.relative_to(ROOT).as_posix() for file in files}
    assert wanted <= names
    assert {name.partition("/")[0] for name in names} == {"flsec", f"flsec-{flsec.__version__}.dist-info"}


def test_its_description_is_the_readme_and_twine_accepts_it(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"flsec-{flsec.__version__}.dist-info/METADATA").decode()
    assert "Will my federated learning survive hostile clients?" in metadata
    assert f"\nVersion: {flsec.__version__}\n" in metadata
    extras = {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if "Provides-Extra" in line}
    assert {"dev", "docs", "huggingface", "llm", "release"} <= extras


def test_it_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    (packages,) = home.glob("lib/python*/site-packages")
    target = ["--no-deps", "--no-index", "--quiet", "--target", str(packages)]
    subprocess.run([sys.executable, "-m", "pip", "install", *target, str(wheel)], check=True, timeout=300)
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # after the wheel's own folder
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(python), *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    where = Path(run("-c", "import flsec; print(flsec.__file__)").strip())
    assert where.is_relative_to(packages)
    flsec_command = ["-c", "from flsec.simulations.cli import main; main()"]
    assert "multi_krum" in run(*flsec_command, "list", "defenses")
    small = ["simulation.engine=inprocess", "simulation.num_rounds=1", "output.plots=false", "output.folder=out"]
    changes = [part for setting in small for part in ("--set", setting)]
    run(*flsec_command, "run", "quickstart", *changes)
    assert list((tmp_path / "out").rglob("rounds.jsonl"))
