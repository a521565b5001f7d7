"""Where pretrained weights are: a folder, an installed package or the Hugging Face hub, found by what files hold."""

import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError

__all__ = ["pretrained_folder", "quiet_transformers", "require_transformers"]

logger = logging.getLogger("flsec")

_PACKAGE = "package:"
_FORMS = 'Give a folder, "package:NAME" of an installed package that holds weights, or a name on the Hugging Face hub.'
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]  # configuration and tokenizer


def pretrained_folder(source: str | Path) -> Path:
    """Return a folder that ``from_pretrained`` of transformers' models and tokenizers reads.

    Weights in one ``.gguf`` file are converted at the first use, their numbers widened to float32, and kept in
    ``~/.cache/flsec``, or in the folder that ``FLSEC_CACHE`` names.

    Args:
        source: a folder with ``config.json``, weights and tokenizer, or with one ``.gguf`` file, or such a file;
            ``"package:NAME"``, an installed package that has such a folder inside; or a name on the Hugging Face hub,
            which is looked for in its cache before the network is asked.

    Raises:
        ConfigError: transformers is missing, or there are no such weights; the message says what to do.

    Example:
        >>> pretrained_folder("package:no-such-package")
        Traceback (most recent call last):
        ...
        flsec.errors.ConfigError: no package 'no-such-package' is installed. Install it: pip install no-such-package
    """
    require_transformers()
    path = Path(source).expanduser()
    if str(source).startswith(_PACKAGE):
        found = _in_package(str(source).removeprefix(_PACKAGE))
    elif path.exists():
        found = _in_folder(path)
    else:
        found = _on_the_hub(str(source))
    return _converted(found) if found.suffix == ".gguf" else found.resolve()


def require_transformers(*others: str) -> None:
    """Raise ``ConfigError`` unless transformers, and the other libraries that are named, are installed."""
    for library in ("transformers", *others):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(f'pretrained models and tokenizers need {library}. Install it: pip install "flsec[llm]".')


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from printing bars and advice; what was set before holds again afterwards."""
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else each fork that follows prints a warning
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the libraries say of each other's old names
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# --- a folder, a package --------------------------------------------------------------------------------------------


def _in_folder(path: Path) -> Path:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    found = _models_among(files)
    if len(found) != 1:
        raise ConfigError(
            f"{path} holds {_counted(found)}. Needed: a folder with config.json and *.safetensors or *.bin, "
            "or with one .gguf file."
        )
    return found[0]


def _in_package(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter: no name at all
        raise ConfigError(f"no package {name!r} is installed. Install it: pip install {name or 'NAME'}") from None
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    found = _models_among(files)
    if len(found) != 1:
        advice = "Name the folder itself." if found else "Is it the right package, and wholly installed?"
        raise ConfigError(f"the package {name!r} holds {_counted(found)}. {advice}")
    return found[0]


def _models_among(files: list[Path]) -> list[Path]:
    """Return the folders that hold a configuration beside its weights; where there are none, the ``.gguf`` files."""
    weighted = {file.parent for file in files if file.suffix in (".safetensors", ".bin")}
    folders = sorted({file.parent for file in files if file.name == "config.json" and file.parent in weighted})
    return folders or sorted(file for file in files if file.suffix == ".gguf")


def _counted(found: list[Path]) -> str:
    return f"{len(found)} models: {', '.join(map(str, found))}" if found else "no model that transformers reads"


# --- the hub --------------------------------------------------------------------------------------------------------


def _on_the_hub(name: str) -> Path:
    """Return the folder in the hub's own cache; the network is asked for what is not there."""
    error: Exception | None = None
    for local in (True, False):
        try:
            return _in_folder(_snapshot(name, local))
        except Exception as problem:  # of the name, the network, the hub's permissions: of a dozen classes
            error = problem
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    raise ConfigError(
        f"no pretrained weights {name!r}: there is no such folder, and the Hugging Face hub did not give them "
        f"({reason:.200}). {_FORMS}"
    ) from error


def _snapshot(name: str, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"local_files_only": local, "etag_timeout": 5, "ignore_patterns": ["*/*"]}
    with quiet_transformers():
        folder = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, "*.safetensors"], **options))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, allow_patterns=["pytorch_model*"], **options)
    return folder


# --- one .gguf file -------------------------------------------------------------------------------------------------


def _converted(gguf: Path) -> Path:
    """Return a folder with what a ``.gguf`` file holds, made at most once whatever the number of processes."""
    from filelock import FileLock

    require_transformers("gguf")
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    cache = Path(os.environ.get("FLSEC_CACHE") or "~/.cache/flsec").expanduser() / "pretrained"
    folder = cache / f"{gguf.stem}-{digest}"
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")  # renamed when it is whole
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{folder.name}.lock"):
            if not folder.exists():
                logger.warning("converting %s, once; this takes a while", gguf.name)
                shutil.rmtree(partial, ignore_errors=True)  # of a process that was stopped
                _convert(gguf, partial)
                partial.rename(folder)
    except OSError as error:
        raise ConfigError(
            f"{gguf.name} cannot be kept in {cache}: {error}. Set FLSEC_CACHE to a folder with enough space."
        ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # on the CPU whatever the caller's default is; the throwaway network below draws random weights
    with quiet_transformers(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            with redirect_stderr(io.StringIO()):  # a bar that no setting turns off
                tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
                model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        except Exception as error:  # of gguf, tokenizers, transformers: whatever the file made them raise
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise ConfigError(f"{gguf} cannot be read by transformers: {reason:.200}.") from error
        del model.config.quantization_config  # it would forbid saving; the numbers are plain floats by now
        plain = AutoModelForCausalLM.from_config(model.config)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
