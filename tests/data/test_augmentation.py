import numpy as np
import pytest
import torch

from flsec.data.augmentation import Augmentation
from flsec.errors import ConfigError


def pictures(n=6, shape=(2, 5, 4), seed=0):
    return 1 + torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))  # no zeros


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def pieces(picture, padding):
    """Every piece that a crop can cut, by a loop."""
    padded = np.pad(picture.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    _, height, width = picture.shape
    corners = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    return {corner: padded[:, corner[0] : corner[0] + height, corner[1] : corner[1] + width] for corner in corners}


def test_a_crop_is_a_piece_of_the_padded_picture_and_each_is_as_likely():
    x = pictures(n=1).expand(4500, -1, -1, -1)
    changed = Augmentation(crop=1).apply(x, random()).numpy()
    counts = {
        corner: int((changed == piece).all(axis=(1, 2, 3)).sum()) for corner, piece in pieces(x[0], padding=1).items()
    }
    assert sum(counts.values()) == 4500
    assert all(abs(count - 500) < 5 * np.sqrt(500) for count in counts.values())


def test_each_picture_keeps_to_itself():
    x = pictures(n=40)
    changed = Augmentation(crop=2, flip=True).apply(x, random()).numpy()
    for before, after in zip(x, changed, strict=True):
        known = list(pieces(before, padding=2).values())
        assert any((after == piece).all() or (after == piece[:, :, ::-1]).all() for piece in known)


def test_about_half_are_mirrored():
    x = pictures(n=2000)
    changed = Augmentation(flip=True).apply(x, random())
    mirrored = (changed == x.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(changed[~mirrored], x[~mirrored])
    assert abs(int(mirrored.sum()) - 1000) < 5 * np.sqrt(500)


def test_it_follows_the_generator_and_leaves_its_argument_and_the_global_state_alone():
    x, augment = pictures(), Augmentation(crop=1, flip=True)
    before, state = x.clone(), torch.get_rng_state()
    first, again, other = (augment.apply(x, random(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    generator = random()
    assert not torch.equal(augment.apply(x, generator), augment.apply(x, generator))
    assert (first.dtype, first.shape) == (x.dtype, x.shape)


def test_nothing_to_do_is_refused():
    with pytest.raises(ConfigError, match=r"changes nothing. For example: augment: \{crop: 4, flip: true\}"):
        Augmentation()
    with pytest.raises(ConfigError, match=r"crop must be.*at least 0|crop must be greater than or equal to 0"):
        Augmentation(crop=-1)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((561,), r"needs pictures.*got \(561,\)"), ((1, 8, 8), "crop must be smaller than the picture's sides, 8 and 8")],
)
def test_samples_that_are_no_pictures_or_small_ones_are_refused(shape, words):
    with pytest.raises(ConfigError, match=words):
        Augmentation(crop=8).apply(torch.zeros(2, *shape), random())
