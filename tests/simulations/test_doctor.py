"""``flsec doctor``: it says what is there, and fails where a run would."""

import collections
import json
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flsec._paths import locate
from flsec.data import DATASETS
from flsec.errors import ConfigError
from flsec.simulations import cli, doctor

README = (Path(__file__).parents[2] / "README.md").read_text()
Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file of the machine's own plays a part."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.setenv("FLSEC_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(doctor, "_memory", lambda: (8 * 2**30, 4 * 2**30))
    monkeypatch.chdir(tmp_path)


def fact(what: str, about: str | None = None) -> doctor.Fact:
    (found,) = [f for f in doctor.examine() if f.what == what and about in (None, f.about)]
    return found


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["doctor", *arguments])
    return result.exit_code, result.output


def test_nothing_is_wrong_here_and_a_pipe_gets_plain_text() -> None:
    code, text = run()
    assert code == 0, text
    assert "Nothing would stop a run." in text
    assert "\x1b" not in text
    for name in (*DATASETS.names(), "flwr", "torch", "cores", "/dev/shm", "FLWR_HOME", "llm"):
        assert name in text


def test_readme_names_the_tested_versions() -> None:
    line = re.search(r"^Tested with (.*?) on Python", README, re.MULTILINE)
    assert line
    shown = dict(re.findall(r"(\w+) ([\d.]+\d)", line[1]))
    assert {{"Flower": "flwr"}.get(name, name.lower()): version for name, version in shown.items()} == doctor.TESTED


def test_another_version_than_the_tested_one_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "flwr" else real(name))
    found = fact("flwr")
    assert (found.status, found.found) == ("note", f"99.0; tested with {doctor.TESTED['flwr']}")


@pytest.mark.parametrize("version", ["1.0.0", None])
def test_a_package_that_is_too_old_or_missing_stops(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def told(name: str) -> str:
        if name == "flwr" and version is None:
            raise metadata.PackageNotFoundError(name)
        return str(version) if name == "flwr" else real(name)

    monkeypatch.setattr(metadata, "version", told)
    code, text = run("--json")
    assert code == 1
    (said,) = json.loads(text)["stops"]
    assert "flwr" in said
    assert "pip install" in said


def test_little_memory_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_memory", lambda: (8 * 2**30, 2**20))
    assert fact("memory", "machine").status == fact("memory", "Ray").status == "stop"


def test_a_full_disk_and_a_small_shm_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: Usage(2**30, 2**30, 2**20))
    assert fact("runs").status == "stop"
    assert fact("/dev/shm").status == "stop"
    assert run()[0] == 1


def test_flower_s_configuration_is_read(tmp_path: Path) -> None:
    assert fact("config.toml").found.startswith("none")
    (tmp_path / "flwr").mkdir()
    file = tmp_path / "flwr" / "config.toml"
    file.write_text('[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:9093"\n')
    assert fact("config.toml").found == f"{file}; SuperLinks: here"
    file.write_text("[superlink")
    assert fact("config.toml").status == "stop"


def test_variables_that_matter_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    assert fact("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION").found == "1"
    assert not [f for f in doctor.examine() if f.what == "telemetry"]


def test_a_check_that_breaks_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def _broken() -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "_flower", _broken)
    found = fact("check")
    assert (found.about, found.found, found.status) == ("broken", "OSError: no such thing", "stop")


def test_data_are_found_and_not_read(tmp_path: Path) -> None:
    assert fact("mnist").status == "note"
    assert "pip" in fact("mnist").advice or "download" in fact("mnist").advice
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
            (folder / name).touch()  # nobody could read these
    assert fact("mnist").found == str((tmp_path / "data").resolve())
    assert locate(DATASETS.get("mnist")) == (tmp_path / "data").resolve()
    with pytest.raises(ConfigError):
        DATASETS.get("mnist")()
    assert fact("digits").found == "built in"
    assert "file" in fact("csv").found


def test_ray_is_not_imported_unless_it_is_to_start() -> None:
    code = "import sys; from flsec.simulations import doctor; doctor.examine(); sys.exit('ray' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
