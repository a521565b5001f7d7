import pickle

import numpy as np
import pytest
import torch

from flsec import ConfigError
from flsec.attacks import (
    BlendedTrigger,
    DistributedTrigger,
    FeatureTrigger,
    SinusoidalTrigger,
    Trigger,
    triggered_test_set,
)


def drawing(trigger, height, width):
    """What the trigger sets, as a picture of text."""
    image = trigger.apply(np.zeros((1, height, width)))[0]
    return ["".join("#" if pixel else "." for pixel in row) for row in image]


def test_the_default_is_badnets_pattern():
    image = Trigger().apply(torch.zeros(1, 28, 28))[0]
    assert sorted(map(tuple, image.nonzero().tolist())) == [(24, 26), (25, 25), (26, 24), (26, 26)]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (Trigger(), [".....", "...#.", "..#..", ".#.#.", "....."]),
        (Trigger(shape="square", size=1), [".....", ".....", ".....", "...#.", "....."]),
        (Trigger(shape="square", size=2, margin=0), [".....", ".....", ".....", "...##", "...##"]),
        (Trigger(shape="plus", position="top_left"), [".....", "..#..", ".###.", "..#..", "....."]),
        (Trigger(shape="plus", position="top_left", margin=0), [".#...", "###..", ".#...", ".....", "....."]),
        (Trigger(shape="square", size=2, position="top_right"), [".....", "..##.", "..##.", ".....", "....."]),
        (Trigger(shape="square", size=2, position="bottom_left"), [".....", ".....", ".##..", ".##..", "....."]),
        (Trigger(shape="plus", size=5, position="center"), ["..#..", "..#..", "#####", "..#..", "..#.."]),
        (Trigger(shape="square", size=3, position="center", margin=9), [".....", ".###.", ".###.", ".###.", "....."]),
    ],
)
def test_shapes_and_places(trigger, expected):
    assert drawing(trigger, 5, 5) == expected


def test_rows_and_columns_are_not_mixed_up():
    trigger = Trigger(shape="square", size=2, position="bottom_left", margin=0)
    assert drawing(trigger, 3, 5) == [".....", "##...", "##..."]
    assert drawing(Trigger(shape="square", size=2, position="center"), 2, 6) == ["..##..", "..##.."]


@pytest.mark.parametrize("position", ["top_left", "top_right", "bottom_left", "bottom_right", "center"])
@pytest.mark.parametrize(("shape", "pixels"), [("square", 9), ("plus", 5), ("pattern", 4)])
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (28, 28)])
def test_the_patch_is_whole_wherever_it_sits(position, shape, pixels, size):
    trigger = Trigger(shape=shape, size=3, position=position, margin=0)
    assert trigger.apply(np.zeros((1, *size))).sum() == pixels


@pytest.mark.parametrize("position", ["top_left", "top_right", "bottom_left", "bottom_right"])
@pytest.mark.parametrize("size", [(3, 9), (9, 3), (1, 9), (2, 2)])
def test_a_patch_that_would_leave_the_image_is_refused(position, size):
    with pytest.raises(ConfigError, match=r"size \+ margin must be at most the image's side; got 3 \+ 1 for images of"):
        Trigger(position=position).apply(torch.zeros(2, 1, *size))


def test_channels_last_images_are_refused():
    with pytest.raises(ConfigError, match=r"28 by 3 pixels\. Use a smaller trigger, or images of shape"):
        Trigger().apply(np.zeros((10, 28, 28, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_only_the_patch_changes_and_only_in_the_copy(dtype):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    stamped = Trigger(value=2.5).apply(images)
    assert torch.equal(images, before)
    assert (stamped.dtype, stamped.shape) == (images.dtype, images.shape)
    patch = Trigger(value=1.0).apply(torch.zeros(8, 8)) > 0
    assert torch.equal(stamped[..., patch], torch.full_like(stamped[..., patch], 2.5))
    assert torch.equal(stamped[..., ~patch], images[..., ~patch])


def test_a_view_is_not_written_through():
    images = np.zeros((4, 1, 8, 8), dtype=np.float32)
    Trigger().apply(images[1:3])
    assert not images.any()
    Trigger().apply(torch.from_numpy(images))
    assert not images.any()


def test_numpy_torch_one_and_many_agree():
    images = np.random.default_rng(0).random((5, 3, 8, 8)).astype(np.float32)
    trigger = Trigger(shape="plus", value=[0.1, 0.2, 0.3])
    many = trigger.apply(images)
    assert many.dtype == np.float32
    np.testing.assert_array_equal(trigger.apply(torch.from_numpy(images)).numpy(), many)
    np.testing.assert_array_equal(np.stack([trigger.apply(image) for image in images]), many)


def test_a_value_per_channel():
    stamped = Trigger(shape="square", size=1, margin=0, value=[1, 2, 3]).apply(torch.zeros(2, 3, 4, 4))
    assert stamped[:, :, 3, 3].tolist() == [[1.0, 2.0, 3.0]] * 2
    assert stamped.sum() == 12


def test_applying_twice_is_applying_once():
    images = np.random.default_rng(0).random((2, 1, 8, 8))
    once = Trigger().apply(images)
    np.testing.assert_array_equal(Trigger().apply(once), once)


@pytest.mark.parametrize("images", [torch.zeros(1, 1, 8, 8, dtype=torch.uint8), np.zeros((1, 1, 8, 8), dtype=int)])
def test_bytes_are_refused(images):
    with pytest.raises(ConfigError, match=r"must be of a floating type.*Convert images"):
        Trigger().apply(images)


@pytest.mark.parametrize("trigger", [Trigger(value=[0.5, 1.0, 1.0]), FeatureTrigger(features=[4, 1], value=[1, 2])])
def test_triggers_are_values(trigger):
    copy = pickle.loads(pickle.dumps(trigger))
    assert copy == trigger
    assert hash(copy) == hash(trigger)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shape": "plus", "size": 4}, "size must be odd; got size=4. Use size=5"),
        ({"shape": "circle"}, "shape must be 'pattern', 'square' or 'plus'; got 'circle'"),
        ({"size": 0}, "size must be greater than or equal to 1; got 0"),
        ({"margin": -1}, "margin must be greater than or equal to 0; got -1"),
        ({"position": "left"}, "position must be .*; got 'left'"),
        ({"value": "white"}, "value"),
    ],
)
def test_messages(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Trigger(**parameters)


def test_the_wrong_number_of_channels():
    with pytest.raises(ConfigError, match=r"got 3 numbers for images of shape .* = \(2, 1, 8, 8\). Give 1 numbers"):
        Trigger(value=[1.0, 1.0, 1.0]).apply(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ConfigError, match=r"3 or more dimensions; got torch\.float32, 2 dimensions"):
        Trigger(value=[1.0]).apply(torch.zeros(8, 8))


# Feature vectors


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_features_are_set_in_a_copy(make):
    inputs = make([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    assert FeatureTrigger(features=[3, 0]).apply(inputs).tolist() == [[1, 2, 3, 1], [1, 6, 7, 1]]
    assert FeatureTrigger(features=[3, 0], value=[9, -9]).apply(inputs).tolist() == [[-9, 2, 3, 9], [-9, 6, 7, 9]]
    assert FeatureTrigger(features=[1], value=0.0).apply(inputs[0]).tolist() == [1, 0, 3, 4]
    assert inputs.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"features": []}, r"at least one feature, each once; got \[\]"),
        ({"features": [1, 1]}, r"at least one feature, each once; got \[1, 1\]"),
        ({"features": [-1]}, "greater than or equal to 0"),
        ({"features": [1, 2], "value": [1.0]}, "got 1 numbers for 2 features. Give 2"),
    ],
)
def test_messages_of_feature_triggers(parameters, message):
    with pytest.raises(ConfigError, match=message):
        FeatureTrigger(**parameters)


def test_a_feature_that_the_data_lack():
    with pytest.raises(ConfigError, match=r"features must be at most 560 for inputs of shape .*\(2, 561\); got 561"):
        FeatureTrigger(features=[561]).apply(np.zeros((2, 561)))


# Test sets


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_the_triggered_test_set_leaves_the_target_class_out(make):
    rng = np.random.default_rng(0)
    x, y = make(rng.random((30, 1, 8, 8))), make(rng.integers(0, 4, size=30))
    x_before, y_before = x.tolist(), y.tolist()
    trigger = Trigger(value=7.0)
    images, labels = triggered_test_set(x, y, trigger, target=2)
    expected = [(trigger.apply(x[i]).tolist(), int(y[i])) for i in range(30) if y[i] != 2]
    assert 0 < len(expected) < 30
    assert list(zip(images.tolist(), labels.tolist(), strict=True)) == expected
    assert (x.tolist(), y.tolist()) == (x_before, y_before)  # the clean test set is never touched
    assert labels.dtype == y.dtype
    images[:], labels[:] = 0, 0
    assert (x.tolist(), y.tolist()) == (x_before, y_before)


def test_the_clean_test_set_is_untouched_without_any_sample_of_the_target_too():
    x, y = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1])
    images, labels = triggered_test_set(x, y, Trigger(), target=9)
    labels += 1
    assert len(images) == 3
    assert y.tolist() == [0, 1, 1]
    assert not x.any()


def test_feature_vectors_have_triggered_test_sets_too():
    x, y = np.zeros((3, 5)), np.array([1, 0, 1])
    inputs, labels = triggered_test_set(x, y, FeatureTrigger(features=[4]), target=1)
    assert inputs.tolist() == [[0, 0, 0, 0, 1]]
    assert labels.tolist() == [0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 1, 8, 8), torch.tensor([2, 2, 2]), "another label than target=2; got none among 3"),
        (torch.zeros(3, 1, 8, 8), torch.tensor([0, 1]), r"\(k, ...\) and \(k,\); got \(3, 1, 8, 8\) and \(2,\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([[0], [1]]), r"got \(2, 1, 8, 8\) and \(2, 1\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0]), "integer type; got torch.float32"),
    ],
)
def test_messages_of_test_sets(x, y, message):
    with pytest.raises(ConfigError, match=message):
        triggered_test_set(x, y, Trigger(), target=2)


def test_the_target_is_a_class():
    with pytest.raises(ConfigError, match="target must be greater than or equal to 0; got -1"):
        triggered_test_set(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), Trigger(), target=-1)


def test_a_batch_of_vectors_is_no_image():
    """The batch axis was taken for the height of one image, and some samples got no trigger at all."""
    table = torch.zeros(10, 12)
    assert (Trigger().apply(table) != 0).any(dim=1).sum() == 3  # one image of 10 by 12 pixels, to apply
    with pytest.raises(ConfigError, match=r"a patch needs images, samples of shape .* got samples of shape \(12,\)"):
        Trigger().apply_to_each(table)
    with pytest.raises(ConfigError, match="a patch needs images"):
        triggered_test_set(table, torch.arange(10), Trigger(), target=0)
    with pytest.raises(ConfigError, match=r"samples of shape \(C, H, W\); got samples of shape \(8, 8\)"):
        Trigger(value=[1.0] * 10).apply_to_each(torch.zeros(10, 8, 8))  # the batch axis is no channel either
    with pytest.raises(ConfigError, match="samples must be vectors"):
        FeatureTrigger(features=[3]).apply_to_each(torch.zeros(10))


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 1, 8, 8)])
def test_every_sample_of_a_batch_gets_the_same_trigger(shape):
    stamped = Trigger().apply_to_each(torch.zeros(shape))
    alone = Trigger().apply(torch.zeros(shape[1:]))
    assert all(torch.equal(sample, alone) for sample in stamped)
    assert FeatureTrigger(features=[0, 2], value=3.0).apply_to_each(np.zeros((4, 6))).sum(axis=1).tolist() == [6.0] * 4


# Triggers over the whole of an input


def pictures(k=5, height=6, width=8, seed=0):
    return np.random.default_rng(seed).random((k, 3, height, width))


def test_blended_noise_is_a_share_of_the_result_and_the_same_for_every_sample():
    x = pictures()
    for alpha in (0.0, 0.3, 1.0):
        mixed = BlendedTrigger(alpha=alpha, seed=4).apply_to_each(x)
        noise = BlendedTrigger(alpha=1.0, seed=4).apply(x[0])
        np.testing.assert_allclose(mixed, (1 - alpha) * x + alpha * noise, rtol=1e-12)
    assert 0 <= noise.min() < 0.1
    assert 0.9 < noise.max() <= 1
    assert not np.array_equal(noise, BlendedTrigger(alpha=1.0, seed=5).apply(x[0]))
    assert len(np.unique(noise)) == noise.size  # independent at each place


def test_blended_noise_has_the_range_that_it_is_told():
    noise = BlendedTrigger(alpha=1.0, low=-2.0, value=-1.0).apply(np.zeros((40, 40)))
    assert -2 <= noise.min() < -1.95
    assert -1.05 < noise.max() <= -1


def test_stripes_are_a_sine_over_the_columns_cut_to_the_range():
    x = pictures()
    striped = SinusoidalTrigger(amplitude=0.4, frequency=3.0).apply_to_each(x)
    for j in range(8):
        expected = np.clip(x[..., j] + 0.4 * np.sin(2 * np.pi * 3 * j / 8), 0, 1)
        np.testing.assert_allclose(striped[..., j], expected, rtol=1e-12)
    free = SinusoidalTrigger(amplitude=0.4, frequency=3.0, low=-9, value=9).apply_to_each(x)
    assert not np.allclose(free, striped)


@pytest.mark.parametrize("trigger", [BlendedTrigger(), SinusoidalTrigger(), DistributedTrigger(length=1)])
def test_whole_input_triggers_keep_kind_dtype_and_what_they_are_given(trigger):
    for x in (pictures().astype(np.float32), pictures(), torch.from_numpy(pictures()), torch.rand(2, 1, 6, 8).half()):
        before = x.clone() if isinstance(x, torch.Tensor) else x.copy()
        stamped = trigger.apply_to_each(x)
        assert (type(stamped), stamped.dtype, stamped.shape) == (type(x), x.dtype, x.shape)
        assert bool((x == before).all())
        assert bool((stamped != x).any())
    with pytest.raises(ConfigError, match="floating"):
        trigger.apply_to_each(np.zeros((2, 1, 6, 8), np.uint8))
    assert pickle.loads(pickle.dumps(trigger)) == trigger


def test_feature_vectors_are_inputs_like_others():
    x = np.random.default_rng(0).random((4, 9))
    assert BlendedTrigger().apply_to_each(x).shape == SinusoidalTrigger().apply_to_each(x).shape == (4, 9)
    with pytest.raises(ConfigError, match="columns"):
        SinusoidalTrigger().apply_to_each(np.zeros(4))


@pytest.mark.parametrize("kind", [BlendedTrigger, SinusoidalTrigger])
def test_an_empty_range_is_refused(kind):
    with pytest.raises(ConfigError, match="low must be less than value"):
        kind(low=1.0, value=1.0)
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(value="white")
