"""Every link between the pages leads somewhere, and every page in docs/ can be found from the index."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "decisions" / "README.md"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md")})


def links(page: Path) -> set[Path]:
    """The files of this checkout that a page links to."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target and target[:7] != "mailto:"}


def unlinked(docs: Path, index: Path) -> list[str]:
    """The pages in ``docs`` to which the index does not link."""
    pages = {page.resolve() for page in docs.rglob("*.md")} - {index.resolve()}
    missing = pages - (links(index) if index.exists() else set())
    return sorted(str(page.relative_to(docs.resolve())) for page in missing)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [str(target) for target in links(page) if not target.exists()] == []


def test_every_page_is_linked_from_the_index() -> None:
    assert unlinked(DOCS, INDEX) == [], "link the page in docs/decisions/README.md"


def test_a_page_that_is_not_linked_is_found(tmp_path: Path) -> None:
    (tmp_path / "guides").mkdir()
    for name in ("one", "two"):
        (tmp_path / "guides" / f"{name}.md").write_text("[a page](other.md)\n")
    index = tmp_path / "README.md"
    index.write_text("[first](guides/one.md#part), [elsewhere](https://example.com)\n")
    assert unlinked(tmp_path, index) == ["guides/two.md"]
    assert links(tmp_path / "guides" / "one.md") == {tmp_path / "guides" / "other.md"}
    index.unlink()
    assert unlinked(tmp_path, index) == ["guides/one.md", "guides/two.md"]


@pytest.mark.parametrize("page", ["acting_on_verdicts.md", "deploy.md"])
def test_what_a_page_shows_runs(page: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), {"__name__": "page"})


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="needs openssl and ssh-keygen")
def test_certificates_and_keys_are_made_as_the_page_says(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```", (DOCS / "deploy.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    subprocess.run(["sh", "-e", "-c", block], cwd=tmp_path, check=True, capture_output=True)
    verify = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "superlink", "server.pem"]
    subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "node-0.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
