"""Every block of README.md and docs/ is run as it stands there, one page after the other, or says why it is not.

A page's blocks share a folder, and its Python blocks a namespace. A block that begins with the name of a file
(``# experiment.yaml``) becomes that file. ``text`` is what something prints. Before a block that is not run stands
``<!-- not run: WHY -->``; where CI runs it, the reason is ``.ci/run does``, and it is looked up there.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<language>[^\s`]*).*\n(?P<code>(?:.*\n)*?)^```$", re.MULTILINE
)
PARSERS = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}
LANGUAGES = {"python", "sh", "text", *PARSERS}
SLOWEST = 600  # seconds that a shell block may take, on a busy machine


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    reason: str | None = None

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it says so."""
        found = re.match(r"# ([\w./-]+\.(?:py|yaml|toml|json))\n", self.code)
        return found[1] if found else None

    @property
    def does(self) -> str:
        if self.reason:
            return "not run"
        return "shows output" if self.language == "text" else "runs"


def blocks(text: str) -> list[Block]:
    """The blocks of a page, but for those that build the site."""
    found = [Block(m["language"], m["code"], m["reason"]) for m in BLOCK.finditer(text)]
    return [block for block in found if not block.language.startswith("{")]


def run_page(text: str, folder: Path, page: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks(text), start=1):
        where = f"{page}, block {number}"
        assert block.language in LANGUAGES, f"{where}: say which of {sorted(LANGUAGES)} it is; got {block.language!r}"
        if block.language in PARSERS:
            PARSERS[block.language](block.code)
        if block.does != "runs":
            continue
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code)
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.code, where, "exec"), names)
        elif block.language == "sh":
            run_in_shell(block.code, folder, where)


def run_in_shell(code: str, folder: Path, where: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["bash", "-e", "-o", "pipefail", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SLOWEST)
    assert done.returncode == 0, f"{where}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    try:
        run_page(page.read_text(), tmp_path, str(page.relative_to(ROOT)))
    finally:
        for name in set(sys.modules) - before:  # modules that the page wrote; the next page may write others
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


def test_blocks_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = [(page.relative_to(ROOT), block) for page in PAGES for block in blocks(page.read_text())]
    counts = Counter(block.does for _, block in found)
    with capsys.disabled():
        print(f"\nblocks: {dict(counts)}")
        for page, block in found:
            if block.reason:
                print(f"  {page}: not run: {block.reason}: {block.code.splitlines()[0][:60]}")
    assert counts["runs"] > 40
    assert counts["not run"] < counts["runs"] / 3


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_what_is_left_to_ci_stands_there(page: Path) -> None:
    run = (ROOT / ".ci" / "run").read_text()
    for block in blocks(page.read_text()):
        if block.reason == ".ci/run does":
            assert all(line in run for line in block.code.splitlines() if line), block.code


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    page = "```text\nnothing\n```\n\n<!-- not run: needs a sea -->\n```sh\nsail\n```\n\n{}\n"
    run_page(page.format("```sh\ntrue\n```"), tmp_path, "page")
    with pytest.raises(AssertionError, match="page, block 3"):
        run_page(page.format("```sh\nfalse\n```"), tmp_path, "page")
    with pytest.raises(ZeroDivisionError):
        run_page(page.format("```python\n1 / 0\n```"), tmp_path, "page")
    with pytest.raises(AssertionError, match="say which of"):
        run_page(page.format("```\n1 / 0\n```"), tmp_path, "page")
    run_page("```python\n# a.py\nx = 1\n```\n```sh\npython -c 'import a; assert a.x == 1'\n```\n", tmp_path, "page")


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen")
def test_certificates_and_keys_are_made_as_the_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    (block,) = [block for block in blocks(page) if "openssl" in block.code]
    run_in_shell(block.code, tmp_path, "deploy.md")
    verify = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "superlink", "server.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "node-0.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
