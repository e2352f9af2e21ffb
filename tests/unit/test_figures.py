"""Unit tests of ``imlkd_brain.figures``."""

import numpy as np
from matplotlib.image import imread, imsave

from imlkd_brain.figures import join_pictures


def test_pictures_are_joined_pixel_for_pixel(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.random((4, 3, 3)), rng.random((2, 5, 3))
    imsave(tmp_path / "left.png", left)
    imsave(tmp_path / "right.png", right)
    names = tmp_path / "left.png", tmp_path / "right.png"
    join_pictures(names, tmp_path / "both.png")
    both = imread(tmp_path / "both.png")[..., :3]
    assert both.shape == (4, 8, 3)
    assert (both[:, :3] == imread(names[0])[..., :3]).all()
    assert (both[:2, 3:] == imread(names[1])[..., :3]).all()
    assert (both[2:, 3:] == 1).all()
