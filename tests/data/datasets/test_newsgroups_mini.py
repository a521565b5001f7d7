import gzip
import json

import numpy as np
import pytest

from flsec.data import make_partition
from flsec.data.datasets import newsgroups_mini
from flsec.errors import ConfigError

POSTS = [
    {"group": group, "id": i, "author": i % 3, "subject": f"cup {i}", "text": f"{group} number{i}\n>old"}
    for group in ("tea", "coffee")
    for i in range(10)
]


def put(root, lines):
    (root / "newsgroups_mini").mkdir()
    path = root / "newsgroups_mini" / "newsgroups_mini.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return str(root)


def test_posts_labels_and_authors_belong_together(tmp_path):
    source = newsgroups_mini(put(tmp_path, map(json.dumps, POSTS)), length=4)
    assert source.class_names == ("coffee", "tea")
    assert (np.bincount(source.train.labels).tolist(), np.bincount(source.test.labels).tolist()) == ([8, 8], [2, 2])
    known = {(post["group"], f"number{post['id']}"): post["author"] for post in POSTS}
    for row, author in enumerate(source.natural_ids("author")):
        x, label = source.train[row]
        group, number = source.vocabulary.decode(x.tolist()).split()
        assert group == source.class_names[label]
        assert known[group, number] == author


def test_the_same_call_reads_once_and_other_parameters_read_again(tmp_path):
    root = put(tmp_path, map(json.dumps, POSTS))
    assert newsgroups_mini(root) is newsgroups_mini(root)
    assert newsgroups_mini(root, subject=True) is not newsgroups_mini(root)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", "line 2: every line must be one JSON object.*'{broken'"),
        ("[1]", r"line 2: every line must be a JSON object in braces; got '\[1\]'"),
        (json.dumps({"group": "tea"}), "line 2: needs a column 'author'; it has: 'group'"),
        (json.dumps(POSTS[0] | {"text": None}), "line 2: the column 'text' must be text; got None"),
        (json.dumps(POSTS[0] | {"author": "Al"}), "line 2: the column 'author' must be a whole number; got 'Al'"),
        ("[" * 100_000, "line 2: every line must be one JSON object"),
    ],
    ids=["json", "list", "column", "null", "type", "deep"],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, line, words):
    root = put(tmp_path, [json.dumps(POSTS[0]), line])
    with pytest.raises(ConfigError, match=f"newsgroups_mini.jsonl.gz, {words}"):
        newsgroups_mini(root)


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"plain", lambda b: gzip.compress(b"\xff\xfe")])
def test_a_damaged_file_is_named(tmp_path, damage):
    root = put(tmp_path, map(json.dumps, POSTS))
    path = tmp_path / "newsgroups_mini" / "newsgroups_mini.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=f"{path} must be lines of JSON in UTF-8"):
        newsgroups_mini(root)


def test_the_real_one_with_its_authors_merged_to_clients(real_root):
    source = newsgroups_mini(real_root("newsgroups_mini/newsgroups_mini.jsonl.gz"))
    assert np.bincount(source.train.labels).tolist() == [80] * 20
    assert np.bincount(source.test.labels).tolist() == [20] * 20
    authors = source.natural_ids()
    partition = make_partition("natural", source.train.labels, 20, groups=authors, leftover="merged")
    assert partition.sizes().tolist() == [80] * 20
    owners = [{*authors[client].tolist()} for client in partition]
    assert sum(map(len, owners)) == len(np.unique(authors))  # nobody's posts are parted
