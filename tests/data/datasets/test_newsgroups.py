import numpy as np
import pytest

from flsec.data.datasets import newsgroups
from flsec.errors import ConfigError

GROUPS = ("alt.tea", "sci.coffee")


def tree(root, inside="20news-bydate/"):
    """Two groups; in training three posts each, of two authors in all."""
    for part, numbers in (("train", (1, 2, 3)), ("test", (4,))):
        for group in GROUPS:
            folder = root / f"{inside}20news-bydate-{part}" / group
            folder.mkdir(parents=True)
            for number in numbers:
                author = ("Bo <b@x>", "Al <a@x>")[number == 1]
                message = f"From: {author}\nSubject: cup {number}\n\nCy writes:\n>old\n{group} caf\xe9\n--\nInc."
                (folder / f"{number}").write_bytes(message.encode("latin-1"))
    return str(root)


@pytest.mark.parametrize("inside", ["", "20news-bydate/"])
def test_folders_become_posts_classes_and_authors(tmp_path, inside):
    source = newsgroups(tree(tmp_path, inside), length=5)
    x, y = source.train.tensors()
    assert source.class_names == GROUPS
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.vocabulary.decode(x[0].tolist()) == "alt . tea caf\xe9"
    assert source.natural_ids("author").tolist() == [0, 1, 1, 0, 1, 1]
    assert len(source.test) == 2


def test_the_subject_may_stand_in_front(tmp_path):
    source = newsgroups(tree(tmp_path), length=7, subject=True)
    assert source.vocabulary.decode(source.train.tensors([0])[0][0].tolist()) == "cup 1 alt . tea caf\xe9"


def test_parts_with_different_groups_are_named(tmp_path):
    root = tree(tmp_path)
    (tmp_path / "20news-bydate" / "20news-bydate-test" / "rec.milk").mkdir()
    with pytest.raises(ConfigError, match=r"same folders, one a group.*rec.milk"):
        newsgroups(root)


def test_empty_folders_are_named(tmp_path):
    for part in ("train", "test"):
        (tmp_path / f"20news-bydate-{part}").mkdir()
    with pytest.raises(ConfigError, match="neither has any"):
        newsgroups(str(tmp_path))


def test_missing_data_names_the_command(tmp_path):
    with pytest.raises(ConfigError, match=r"curl -L http.*20news-bydate.tar.gz"):
        newsgroups(str(tmp_path))


def test_the_real_one(real_root):
    source = newsgroups(real_root("20news-bydate"))
    assert (len(source.train), len(source.test), source.num_classes) == (11_314, 7_532, 20)
    assert np.bincount(source.train.labels).min() == 377
