"""Tests of `ml3_tf.envs.drawing`: lines and circles are where their world coordinates say."""

import numpy as np
import pytest

from ml3_tf.envs import drawing


@pytest.fixture
def canvas():
    return drawing.Canvas(x_range=(-1.0, 3.0), y_range=(0.0, 1.0), width=400)


def test_empty_canvas_is_white_and_as_tall_as_the_world(canvas):
    image = canvas.image()
    assert image.shape == (100, 400, 3) and image.dtype == np.uint8
    assert np.all(image == 255)


def test_circle_lies_at_its_world_coordinates(canvas):
    canvas.circle(0.0, 0.25, radius=0.1, color=drawing.GOAL)
    rows, columns = np.nonzero(np.all(canvas.image() == drawing.GOAL, -1))
    assert np.mean(rows) == pytest.approx(74.5, abs=1) and np.mean(columns) == pytest.approx(99.5, abs=1)
    assert len(rows) == pytest.approx(np.pi * 10**2, rel=0.1)


def test_line_joins_its_points(canvas):
    canvas.line([-0.5, 2.5], [0.5, 0.5], color=drawing.INK, width=4)
    rows, columns = np.nonzero(np.all(canvas.image() == drawing.INK, -1))
    assert (np.min(columns), np.max(columns)) == (pytest.approx(50, abs=1), pytest.approx(350, abs=1))
    assert np.ptp(rows) == pytest.approx(3, abs=1)
