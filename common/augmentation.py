"""Change training images at random, so that no epoch sees quite the images of another."""

import cv2
import numpy as np
from pydantic import Field

from common.params import StageParams

GRID = 8  # points a side: an elastic distortion is chosen at these and smooth in between


class AugmentParams(StageParams):
    """How far images are changed; 0 everywhere leaves them as they are."""

    rotation: float = Field(ge=0, le=180, description="a number of degrees from 0 to 180")
    shift: float = Field(ge=0, le=1024, description="a number of pixels from 0 to 1024")
    scale: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    shear: float = Field(ge=0, le=60, description="a number of degrees from 0 to 60")
    elastic: float = Field(ge=0, le=1024, description="a number of pixels from 0 to 1024")
    flip: bool = Field(description="true or false")
    brightness: float = Field(ge=0, le=1, description="a number from 0 to 1")
    contrast: float = Field(ge=0, le=1, description="a number from 0 to 1")


GEOMETRIC = ("rotation", "shift", "scale", "shear", "elastic")


def augment(images: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    """Return images, each changed at random in a way of its own.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, size, size, channels)
        Left as they are.
    params : AugmentParams
        How far they are changed; see `move`, `flip` and `change_light`.
    rng : numpy.random.Generator
        The changes depend on its state and on the number of images.

    Returns
    -------
    ndarray of uint8, shape (n, size, size, channels)
        The same array where everything is off.
    """
    if any(getattr(params, name) for name in GEOMETRIC):
        images = move(images, params, rng)
    if params.flip:
        images = flip(images, rng)
    if params.brightness or params.contrast:
        images = change_light(images, params, rng)
    return images


def move(images: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    """Return images, each moved by an affine map and an elastic distortion of its own.

    An image is turned by up to `rotation` and sheared by up to `shear` degrees, enlarged or
    reduced by up to the share `scale`, all about its centre, and moved by up to `shift` pixels in
    each direction: evenly distributed between minus and plus that much. Each of its pixels is
    moved further by an amount of standard deviation `elastic`, in pixels, that varies smoothly
    over the image [1]_. What comes in from beyond the edges is black. Bilinear interpolation.

    References
    ----------
    .. [1] P. Y. Simard, D. Steinkraus and J. C. Platt, "Best practices for convolutional neural
       networks applied to visual document analysis", ICDAR 2003.
    """
    maps = source_maps(len(images), images.shape[1], params, rng)
    moved = np.empty_like(images)
    for image, (x, y), out in zip(images, maps, moved, strict=True):
        cv2.remap(image, x, y, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_CONSTANT)
    return moved


def flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images, of which every second, at random, shows left and right exchanged [1]_.

    References
    ----------
    .. [1] A. Krizhevsky, I. Sutskever and G. E. Hinton, "ImageNet classification with deep
       convolutional neural networks", NIPS 2012.
    """
    is_flipped = rng.random(len(images)) < 0.5
    return np.where(is_flipped[:, None, None, None], images[:, :, ::-1], images)


def change_light(images: np.ndarray, params: AugmentParams, rng: np.random.Generator) -> np.ndarray:
    """Return images, each brighter or darker and with more or less contrast [1]_.

    The differences of the pixels from the mean of their image are multiplied by a factor between 1
    less and 1 plus `contrast`, then a number between minus and plus the share `brightness` of white
    is added: both evenly distributed, the same for all pixels and channels of an image.

    References
    ----------
    .. [1] A. G. Howard, "Some improvements on deep convolutional neural network based image
       classification", arXiv:1312.5402, 2013.
    """
    limits = np.array([params.contrast, params.brightness])
    factor, addend = rng.uniform(-limits, limits, (len(images), 2)).astype(np.float32).T
    factor, addend = (v[:, None, None, None] for v in (1 + factor, 255 * addend))
    mean = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    changed = (images - mean) * factor + (mean + addend)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def source_maps(
    count: int, size: int, params: AugmentParams, rng: np.random.Generator
) -> np.ndarray:
    """Choose at random where in an image each pixel of the changed image comes from.

    Returns
    -------
    ndarray of float32, shape (count, 2, size, size)
        Column and row, in pixels.
    """
    limits = np.array([params.rotation, params.shear, params.scale, params.shift, params.shift])
    turn, slant, growth, dx, dy = rng.uniform(-limits, limits, (count, 5)).astype(np.float32).T
    turn, slant, middle = np.radians(turn), np.tan(np.radians(slant)), (size - 1) / 2
    cos, sin = np.cos(turn) / (1 + growth), np.sin(turn) / (1 + growth)
    affine = np.array(
        [
            [cos, cos * slant - sin, middle + dx],
            [sin, sin * slant + cos, middle + dy],
        ]
    )
    y, x = np.indices((size, size), np.float32) - np.float32(middle)
    points = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    maps = (affine.transpose(2, 0, 1) @ points).reshape(count, 2, size, size)
    if params.elastic:
        # Noise at the points of a grid, smoothed by a Gaussian as wide as they are apart, and
        # scaled so that it varies as much between the points as at them.
        position = np.arange(size)[:, None] * (GRID - 1) / max(1, size - 1) - np.arange(GRID)
        smooth = np.exp(-(position**2) / 2)
        smooth = (smooth / np.sqrt((smooth**2).sum(axis=1, keepdims=True))).astype(np.float32)
        noise = rng.standard_normal((count, 2, GRID, GRID), np.float32)
        maps += np.float32(params.elastic) * (smooth @ noise @ smooth.T)
    return maps
