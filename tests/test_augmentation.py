"""Augmentation: what it does to images, by hand and in training."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from common.augmentation import AugmentParams, augment, source_maps

OFF = dict.fromkeys(AugmentParams.model_fields, 0) | {"flip": False}
ALL_ON = {
    "rotation": 10,
    "shift": 2,
    "scale": 0.1,
    "shear": 10,
    "elastic": 1,
    "flip": True,
    "brightness": 0.2,
    "contrast": 0.5,
}
DOT = np.zeros((200, 28, 28, 1), np.uint8)
DOT[:, 13:15, 20:22] = 255  # 7 pixels to the right of the middle


def moved(**changes: float) -> np.ndarray:
    """Return where the dot is in each changed image: pixels below and right of the middle."""
    params = AugmentParams(**OFF | changes)
    images = augment(DOT, params, np.random.default_rng(0))
    assert images.shape == DOT.shape
    assert images.dtype == np.uint8
    return np.array([center_of_mass(image[:, :, 0]) for image in images]) - 13.5


def test_off_leaves_images_as_they_are() -> None:
    assert augment(DOT, AugmentParams(**OFF), np.random.default_rng(0)) is DOT


def test_the_same_state_gives_the_same_images_and_another_others() -> None:
    params = AugmentParams(**ALL_ON)
    first, again, other = (
        augment(DOT, params, np.random.default_rng([42, epoch, 1])) for epoch in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (DOT[:, 13:15, 20:22] == 255).all()  # its input is left alone


@pytest.mark.parametrize(
    ("change", "down", "right"),
    [
        ({"shift": 3}, (-3, 3), (4, 10)),
        ({"rotation": 30}, (-3.5, 3.5), (7 * np.cos(np.pi / 6), 7)),
        ({"scale": 0.5}, (0, 0), (3.5, 10.5)),
        ({"shear": 45}, (0, 0), (7, 7)),  # a shear leaves the middle row where it is
    ],
)
def test_changes_reach_their_limits_and_no_further(
    change: dict, down: tuple[float, float], right: tuple[float, float]
) -> None:
    found = moved(**change)
    for axis, limits in enumerate((down, right)):
        assert found[:, axis].min() == pytest.approx(limits[0], abs=0.3)
        assert found[:, axis].max() == pytest.approx(limits[1], abs=0.3)


def test_a_shear_slants_what_stands_upright() -> None:
    bars = np.zeros((200, 28, 28, 1), np.uint8)
    bars[:, :, 13:15] = 255
    images = augment(bars, AugmentParams(**OFF | {"shear": 45}), np.random.default_rng(0))
    top = np.array([center_of_mass(image[8:10, :, 0])[1] for image in images]) - 13.5
    assert -5.3 < top.min() < -4
    assert 4 < top.max() < 5.3  # 5 rows above the middle: at 45 degrees 5 to the side


def test_an_elastic_distortion_is_as_wide_as_asked_and_smooth() -> None:
    params = AugmentParams(**OFF | {"elastic": 1.5})
    maps = source_maps(2000, 28, params, np.random.default_rng(0))
    change = maps - source_maps(1, 28, AugmentParams(**OFF), np.random.default_rng(0))
    np.testing.assert_allclose(change.std(axis=0), 1.5, rtol=0.15)
    assert np.abs(change.mean(axis=0)).max() < 0.2
    assert np.diff(change, axis=-1).std() < 1.5 / 3


GREYS = np.full((200, 4, 4, 3), 100, np.uint8)
GREYS[:, :, 2:] = 140  # mean 120, differences 20


def changed(images: np.ndarray, **changes: object) -> np.ndarray:
    """Return images, changed."""
    return augment(images, AugmentParams(**OFF | changes), np.random.default_rng(0))


def test_a_flip_exchanges_left_and_right_in_every_second_image() -> None:
    images = changed(GREYS, flip=True)
    is_flipped = (images == GREYS[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((images == GREYS).all(axis=(1, 2, 3)) ^ is_flipped).all()
    assert 70 < is_flipped.sum() < 130


def test_brightness_is_added_up_to_its_limit_and_the_same_everywhere() -> None:
    change = changed(GREYS, brightness=0.2).astype(int) - GREYS
    assert (change == change[:, :1, :1, :1]).all()
    assert -51 <= change.min() < -45
    assert 45 < change.max() <= 51  # a fifth of 255


def test_contrast_multiplies_the_differences_up_to_its_limit_and_keeps_the_mean() -> None:
    images = changed(GREYS, contrast=0.5).astype(int)
    difference = images[:, 0, 3, 0] - images[:, 0, 0, 0]
    assert 20 <= difference.min() < 24
    assert 56 < difference.max() <= 60
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 120, atol=0.5)


def test_what_becomes_brighter_than_white_is_white() -> None:
    for level in (0, 255):
        images = changed(np.full((200, 4, 4, 1), level, np.uint8), brightness=1.0)
        assert images.min() == 0 or level == 255
        assert len(np.unique(images)) > 50
        assert (np.abs(images.astype(int) - level) <= 255).all()
        assert (images == level).mean() > 0.3  # about half were moved further out


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_changed_together(channels: int) -> None:
    images = np.repeat(DOT, channels, axis=3)
    found = augment(images, AugmentParams(**ALL_ON), np.random.default_rng(0))
    assert found.shape == images.shape
    assert (found == found[..., :1]).all()
