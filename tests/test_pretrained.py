"""Where pretrained weights are found. Real ones are in tests/models/test_transformers.py."""

import logging
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from flsec import _pretrained
from flsec._pretrained import pretrained_folder, quiet_transformers
from flsec.errors import ConfigError

pytest.importorskip("transformers")


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """A function that installs a package with these files, each relative to where packages are."""

    def install(*files: str) -> str:
        site = tmp_path / "site"
        for file in files:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).touch()
        info = site / "some_weights-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        monkeypatch.syspath_prepend(site)
        return "package:some-weights"

    return install


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch) -> Path:
    if find_spec("gguf") is None:
        pytest.skip("needs gguf")
    monkeypatch.setenv("FLSEC_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights" / "tiny.gguf"
    file.parent.mkdir()
    file.write_bytes(b"numbers")
    return file


def test_a_package_is_known_by_what_its_files_are(package, tmp_path: Path) -> None:
    name = package("some/pooling/config.json", "some/model/config.json", "some/model/model.safetensors", "some/a.gguf")
    assert pretrained_folder(name) == tmp_path / "site" / "some" / "model"
    assert pretrained_folder("package:Some_Weights") == tmp_path / "site" / "some" / "model"
    assert pretrained_folder(tmp_path / "site" / "some" / "model") == tmp_path / "site" / "some" / "model"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["some/config.json", "some/__init__.py"], "holds no model that transformers reads. Is it the right package"),
        (["a/config.json", "a/x.bin", "b/config.json", "b/x.bin"], "holds 2 models: .*/a, .*/b. Name the folder"),
    ],
)
def test_a_package_without_one_model_is_refused(package, files, words: str) -> None:
    with pytest.raises(ConfigError, match=f"the package 'some-weights' {words}"):
        pretrained_folder(package(*files))


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"no package 'no-such' is installed\. Install it: pip install no-such"):
        pretrained_folder("package:no-such")
    with pytest.raises(ConfigError, match="pip install NAME"):
        pretrained_folder("package:")
    with pytest.raises(ConfigError, match=r"holds no model that transformers reads\. Needed: a folder"):
        pretrained_folder(tmp_path)
    monkeypatch.setattr(_pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'need transformers. Install it: pip install "flsec\[llm\]"'):
        pretrained_folder(tmp_path)


def test_the_hub_is_asked_for_what_its_cache_has_not(tmp_path: Path, monkeypatch) -> None:
    asked, folder = [], tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").touch()

    def snapshot_download(name, *, local_files_only, **options):
        asked.append(local_files_only)
        if not local_files_only:
            (folder / "model.safetensors").touch()
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert pretrained_folder("some/model") == folder
    assert pretrained_folder("some/model") == folder
    assert asked == [True, True, False, True]  # no weights in safetensors, nor of the older kind; there; all at hand


def test_a_hub_that_does_not_answer_is_an_error_in_one_sentence(monkeypatch) -> None:
    def snapshot_download(name, **options):
        raise OSError("no route to host.\nA traceback follows")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ConfigError, match=r"no pretrained weights 'some/model': .*\(no route to host\)\. Give"):
        pretrained_folder("some/model")


# --- one .gguf file --------------------------------------------------------------------------------------------------


def test_a_file_is_converted_once_whoever_asks(gguf: Path, monkeypatch) -> None:
    made = []

    def convert(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        made.append(file)

    monkeypatch.setattr(_pretrained, "_convert", convert)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(pretrained_folder(gguf))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(made) == 1
    assert pretrained_folder(gguf.parent) == found[0]
    gguf.write_bytes(b"other numbers")
    assert pretrained_folder(gguf) != found[0]
    assert len(made) == 2


def test_a_conversion_that_stops_half_way_leaves_nothing_that_counts(gguf: Path, monkeypatch) -> None:
    def stopped(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    def whole(file: Path, folder: Path) -> None:
        folder.mkdir()

    monkeypatch.setattr(_pretrained, "_convert", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrained_folder(gguf)
    monkeypatch.setattr(_pretrained, "_convert", whole)
    assert list(pretrained_folder(gguf).iterdir()) == []


def test_a_file_that_is_no_gguf_and_a_cache_that_cannot_be_written_are_named(gguf: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.gguf cannot be read by transformers"):
        pretrained_folder(gguf)
    monkeypatch.setenv("FLSEC_CACHE", str(gguf))  # a file
    with pytest.raises(ConfigError, match=r"tiny\.gguf cannot be kept in .* Set FLSEC_CACHE to a folder"):
        pretrained_folder(gguf)


# --- silence ---------------------------------------------------------------------------------------------------------


def test_silence_ends(monkeypatch, capfd) -> None:
    from transformers.utils import logging as theirs

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    before = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    with quiet_transformers():
        theirs.get_logger("transformers.some").warning("advice")
        warnings.warn("an old name", FutureWarning, stacklevel=1)
        assert theirs.get_verbosity() == logging.ERROR
        assert not theirs.is_progress_bar_enabled()
    assert (theirs.get_verbosity(), theirs.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")
