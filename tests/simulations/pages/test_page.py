"""A page in a real browser: nothing is loaded, tables sort and filter, charts are drawn, no text becomes markup."""

import functools
import json
import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flsec.errors import ConfigError
from flsec.simulations.pages.page import Chart, Code, Column, Data, Fold, Picture, Section, Table, Text, write_page
from tests.support.browser import complaints, draw_all, look, opened, requested, show

alt = pytest.importorskip("altair")
__all__ = ["opened"]  # a fixture

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'><svg onload='window.hacked = 1'>",
    "\u2028window.hacked = 1//\u2029",
    '"]}; window.hacked = 1; //',
    "<!--<script>",
    "]]>{{ 7 * 7 }}{% raw %}",
    "javascript:window.hacked=1",
    "\x00\ud800".encode("utf-8", "replace").decode(),
]
NAMES = ["Krum", "none", "Median", "RFA"]
SCORES = [0.91, 0.1, None, 12.0]


def sections(texts, accuracy=0.5):
    """A page that has each part, with these texts wherever one goes."""
    rows = [{"name": text, "score": 0.5, "kind": text} for text in texts]
    points = Data("points", [{"round": r, "value": accuracy * r, "name": text} for r in range(3) for text in texts])
    spec = (
        alt.Chart(points.named).mark_point(size=200).encode(x="round:Q", y="value:Q", color="name:N", tooltip="name:N")
    )
    columns = [
        Column("name", "Name", choose=True),
        Column("score", "Score", digits=2),
        Column("kind", "Kind", help=texts[0]),
    ]
    chart = Chart(texts[0], texts[-1], spec, [points], [Column("name", "Name"), Column("round", "Round", digits=0)])
    parts = [Table(texts[0], columns, rows), chart, Text(texts[0], "warning"), Code(texts[0], "\n".join(texts))]
    return [Section(text, [Fold(text, parts)] if i == 0 else [Text(text)]) for i, text in enumerate(texts)]


@pytest.fixture
def table_page(tmp_path):
    rows = [{"name": n, "score": s, "even": i % 2 == 0} for i, (n, s) in enumerate(zip(NAMES, SCORES, strict=True))]
    columns = [Column("name", "Name"), Column("score", "Score", digits=2), Column("even", "Even", choose=True)]
    write_page(tmp_path / "page.html", "Four", [Section("All", [Table("Scores", columns, rows, sort="-score")])])
    return tmp_path / "page.html"


def first_cells(opened):
    rows = "[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
    return opened.execute_script(f"return {rows}.map((row) => row.cells[0].textContent)")


def test_a_table_sorts_by_click_and_by_keyboard_and_what_is_missing_stays_last(opened, table_page, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(opened, table_page)
    assert first_cells(opened) == ["RFA", "Krum", "none", "Median"]
    name, score, _ = opened.find_elements(By.CSS_SELECTOR, "thead button")
    score.click()
    assert first_cells(opened) == ["none", "Krum", "RFA", "Median"]  # as numbers: 12 is more than 0.91
    score.click()
    assert first_cells(opened) == ["RFA", "Krum", "none", "Median"]
    name.send_keys(Keys.ENTER)
    assert first_cells(opened) == ["Krum", "Median", "none", "RFA"]
    states = opened.execute_script(
        "return [...document.querySelectorAll('th')].map((h) => h.getAttribute('aria-sort'))"
    )
    assert states[:3] == ["ascending", None, None]


def test_a_table_is_filtered_by_words_and_by_a_chosen_value_and_says_how_many_are_left(opened, table_page, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    show(opened, table_page)
    field, count = opened.find_element(By.CSS_SELECTOR, "input"), opened.find_element(By.CLASS_NAME, "count")
    assert count.text == "4 rows"
    assert count.get_attribute("role") == "status"
    Select(opened.find_element(By.CSS_SELECTOR, "select")).select_by_visible_text("True")
    assert first_cells(opened) == ["Krum", "Median"]
    field.send_keys("KRU")
    assert first_cells(opened) == ["Krum"]
    assert count.text == "1 of 4 rows"
    field.send_keys("zzz")
    assert first_cells(opened) == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_no_text_becomes_markup_nothing_is_loaded_and_nothing_is_wider_than_the_screen(opened, tmp_path, width, dark):
    page = tmp_path / "page.html"
    write_page(page, HOSTILE[0], sections(HOSTILE), lead=HOSTILE[2])
    show(opened, page, width, dark=dark)
    draw_all(opened)
    opened.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert complaints(opened) == []
    assert requested(opened) == [page.as_uri()]
    assert opened.execute_script("return window.hacked") is None
    assert opened.execute_script("return document.querySelectorAll('img, svg[onload], section script').length") == 0
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    shown = opened.execute_script("return document.body.innerText")
    for text in HOSTILE[:4]:
        assert text in shown
    assert opened.execute_script("return document.querySelectorAll('.numbers tbody tr').length") == 3 * len(HOSTILE)


def test_the_policy_stops_a_script_that_gets_in_all_the_same(opened, tmp_path):
    """Were a text not escaped, the browser would still not run it. (This also shows that the test above can fail.)"""
    page = tmp_path / "page.html"
    write_page(page, "page", sections(["fine", "too"]))
    assert "Content-Security-Policy" in page.read_text()
    injected = "<body><script>window.hacked = 1</script><img src='https://127.0.0.1:9/x' onerror='window.hacked = 2'>"
    page.write_text(page.read_text().replace("<body>", injected, 1))
    show(opened, page)
    draw_all(opened)
    assert opened.execute_script("return window.hacked") is None
    assert len(complaints(opened)) >= 2
    bare = page.read_text().replace("Content-Security-Policy", "Nothing", 1)
    (tmp_path / "bare.html").write_text(bare)
    show(opened, tmp_path / "bare.html")
    assert opened.execute_script("return window.hacked") is not None


def test_charts_follow_the_reader_s_colours(opened, tmp_path):
    page = tmp_path / "page.html"
    write_page(page, "page", sections(["fine", "too"]))
    colour = "return getComputedStyle(document.querySelector('.plot svg .role-axis-title text')).fill"
    show(opened, page)
    draw_all(opened)
    light = opened.execute_script(colour)
    look(opened, dark=True)
    opened.execute_async_script("setTimeout(arguments[0], 500)")
    assert light == "rgb(27, 31, 36)"
    assert opened.execute_script(colour) == "rgb(231, 234, 238)"


def test_who_reads_by_ear_or_by_keyboard_finds_landmarks_headings_and_descriptions(tmp_path):
    page = tmp_path / "page.html"
    picture = Picture("A picture", "What it shows", b"\x89PNG")
    write_page(page, "page", [*sections(["fine", "too"]), Section("Pictures", [picture])])
    text = page.read_text().partition("<script")[0]
    for landmark in ("<header>", '<nav aria-label="Sections">', '<main id="main"', "<footer>", '<html lang="en">'):
        assert text.count(landmark) == 1, landmark
    assert [int(level) for level in re.findall(r"<h(\d)", text)] == [1, 2, 2, 2]
    assert text.count("<caption>") == text.count("<table>")
    assert 'alt="What it shows"' in text
    assert '<div class="plot" role="img" aria-label="too">' in text
    for link in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{link}"' in text


class Outside:
    """What a document holds beside its texts: the tags, in order, with their attributes' names."""

    def __init__(self, text):
        from html.parser import HTMLParser

        self.tags = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: self.tags.append((tag, tuple(n for n, _ in attributes)))
        parser.handle_endtag = lambda tag: self.tags.append((f"/{tag}",))
        parser.feed(text)


@functools.cache
def skeleton(tmp_path, text):
    page = tmp_path / "page.html"
    write_page(page, text, sections([text, "b"]), lead=text)
    html = page.read_text()
    content = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.DOTALL)[1]
    assert not set(content) & set("<>&\u2028\u2029\n")
    return Outside(html).tags, json.loads(content)


@settings(max_examples=12, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(text=HOSTILE[0])
@example(text=HOSTILE[1])
@example(text=HOSTILE[2])
@example(text=HOSTILE[4])
def test_whatever_a_text_is_the_page_has_the_same_tags_and_the_data_hold_the_text(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    tags, content = skeleton(folder, text)
    if text.strip() not in ("", "b"):  # those leave out a choice
        assert tags == skeleton(folder, "plain")[0]
    names = content["data"]["points"]["name"]
    assert text in (names if isinstance(names, list) else names["values"])


def test_numbers_that_json_lacks_are_texts_and_not_invalid_json(tmp_path):
    numbers = Data("points", [{"round": 1, "value": float("nan")}, {"round": 2, "value": float("-inf")}])
    chart = Chart("c", "d", {"data": {"name": "points"}, "mark": "point"}, [numbers])
    write_page(tmp_path / "page.html", "t", [Section("s", [chart])])
    assert '["nan","-inf"]' in (tmp_path / "page.html").read_text()


def test_two_data_of_one_name_are_refused(tmp_path):
    charts = [Chart("c", "d", {}, [Data("same", [{"x": i}])]) for i in range(2)]
    with pytest.raises(ValueError, match="'same'"):
        write_page(tmp_path / "page.html", "t", [Section("s", charts)])


@pytest.mark.parametrize("missing", ["jinja2", "altair", "vl_convert"])
def test_without_its_libraries_the_install_command_is_said(tmp_path, monkeypatch, missing):
    from flsec.simulations.pages import page

    page._vega.cache_clear()
    texts = sections(["a", "b"])
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r'pip install "flsec\[report\]"'):
        write_page(tmp_path / "page.html", "t", texts)
    assert not (tmp_path / "page.html").exists()
