"""Every link between the pages leads somewhere, every page can be reached, and docstrings hold what they should."""

import importlib
import re
from pathlib import Path

import pytest

from docs import coverage

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "templates").rglob("*.md")})
MADE = re.compile(  # by docs/pages.py, when the site is built
    r"docs/((defenses|attacks|strategies|datasets|partitioners|models|tasks|api)/\w+|experiments)\.md$"
)
WANTED = {"shapes": 0.40, "sources": 0.30, "raises": 0.28, "examples": 0.57}  # the shares of the best libraries


def links(page: Path) -> set[Path]:
    """The files of this checkout that a page links to, or has in a table of contents."""
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    for entries in re.findall(r"^```\{toctree\}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        names = [line for line in entries.splitlines() if line and not line.startswith(":")]
        targets += [f"{name}.ipynb" if (page.parent / f"{name}.ipynb").exists() else f"{name}.md" for name in names]
    targets += [f"{target}.md" for target in re.findall(r"^:link: (\S+)$", text, flags=re.MULTILINE)]
    return {(page.parent / target).resolve() for target in targets if "://" not in target and target[:7] != "mailto:"}


def unreachable(docs: Path, index: Path) -> list[str]:
    """The pages in ``docs`` to which no links lead from the index."""
    found, waiting = set(), [index.resolve()]
    while waiting:
        page = waiting.pop()
        if page not in found and page.is_file() and page.suffix in (".md", ".ipynb"):
            found.add(page)
            waiting += links(page) if page.suffix == ".md" else []
    pages = {page.resolve() for kind in ("*.md", "*.ipynb") for page in docs.rglob(kind)}
    return sorted(str(page.relative_to(docs.resolve())) for page in pages - found)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [str(target) for target in links(page) if not target.exists() and not MADE.search(str(target))] == []


def test_links_to_pages_that_are_made_lead_to_what_will_be_there() -> None:
    from docs.pages import ONE, members

    made = {f"{member.kind}/{member.name}.md" for member in members()} | {f"{kind}/index.md" for kind in ONE}
    made |= {f"api/{name.split('.')[1]}.md" for name, _ in coverage.public_items()} | {"api/index.md", "experiments.md"}
    wanted = {t for page in PAGES for t in links(page) if MADE.search(str(t)) and not t.exists()}
    assert wanted
    assert {str(target.relative_to(DOCS)) for target in wanted} - made == set()


def test_every_page_can_be_reached_from_the_index() -> None:
    assert unreachable(DOCS, INDEX) == [], "link the page, or put it into a toctree of docs/index.md"


def test_a_page_that_cannot_be_reached_is_found(tmp_path: Path) -> None:
    (tmp_path / "guides").mkdir()
    for name in ("one", "two", "three", "four"):
        (tmp_path / "guides" / f"{name}.md").write_text("[a page](other.md)\n")
    index = tmp_path / "index.md"
    index.write_text(
        "[first](guides/one.md#part), [elsewhere](https://example.com)\n```{toctree}\n:hidden:\n\nguides/four\n```\n"
    )
    assert unreachable(tmp_path, index) == ["guides/three.md", "guides/two.md"]
    assert links(tmp_path / "guides" / "one.md") == {tmp_path / "guides" / "other.md"}
    (tmp_path / "guides" / "one.md").write_text("[on](two.md)\n")
    assert unreachable(tmp_path, index) == ["guides/three.md"]


def test_dotted_names_on_pages_are_there() -> None:
    pattern = re.compile(r"`(flsec(?:\.[a-z_]\w*)+(?:\.[A-Z]\w*)?)(?:\(.*?\))?`")
    missing = []
    for page in PAGES:
        for name in pattern.findall(page.read_text()):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ImportError:
                if not hasattr(importlib.import_module(module), attribute):
                    missing.append(f"{page.name}: {name}")
    assert missing == []


def test_all_that_is_public_is_documented() -> None:
    assert coverage.undocumented() == []


@pytest.mark.parametrize("mark", WANTED)
def test_docstrings_have_what_those_of_good_libraries_have(mark: str) -> None:
    share = coverage.shares()["library"][mark]
    assert share >= WANTED[mark], f"{share:.1%}: python -m docs.coverage --without {mark} names those that lack it"


def test_an_example_is_no_shape_and_a_shape_is_found() -> None:
    def one() -> None:
        """Return (n, d) numbers."""

    def other() -> None:
        """Return numbers.

        Example:
            >>> zeros((2, 3))
            (2, 3)
        """

    assert coverage.has(one, "shapes")
    assert not coverage.has(other, "shapes")
    assert coverage.has(other, "examples")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
