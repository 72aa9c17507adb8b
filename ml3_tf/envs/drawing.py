"""Frames of the environments that no simulator draws."""

import numpy as np
from PIL import Image, ImageDraw

# Colors that stay apart for most kinds of color vision (Okabe and Ito).
INK = (60, 60, 60)
AGENT = (0, 114, 178)
GOAL = (213, 94, 0)

_OVERSAMPLING = 2  # lines are drawn larger and scaled down, which smooths their edges


class Canvas:
    """A white image on which lines and circles are drawn in the units of the world.

    Args:
        x_range: World coordinates of the left and right edge.
        y_range: The same of the lower and upper edge.
        width: Width of the image in pixels. The height follows, so that circles are round.
    """

    def __init__(self, x_range, y_range, width=320):
        self._left, self._top = x_range[0], y_range[1]
        self._scale = width * _OVERSAMPLING / (x_range[1] - x_range[0])
        height = round(self._scale * (y_range[1] - y_range[0]) / _OVERSAMPLING)
        self._image = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, x, y, color, width=3):
        """Draws a line through points; `width` in pixels."""
        points = [self._pixel(*point) for point in zip(x, y)]
        self._draw.line(points, fill=color, width=width * _OVERSAMPLING, joint="curve")

    def circle(self, x, y, radius, color):
        """Draws a filled circle; `radius` in units of the world."""
        column, row = self._pixel(x, y)
        self._draw.circle((column, row), radius * self._scale, fill=color)

    def image(self):
        """Returns the image `[height, width, 3]`, uint8."""
        size = [length // _OVERSAMPLING for length in self._image.size]
        return np.asarray(self._image.resize(size, Image.Resampling.BOX))

    def _pixel(self, x, y):
        return (x - self._left) * self._scale, (self._top - y) * self._scale
