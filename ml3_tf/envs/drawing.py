"""A canvas for the frames of the environments."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from ml3_tf.extras import needed_for

with needed_for("A frame of an environment", "pillow", extra="rl"):
    from PIL import Image, ImageDraw

Color: TypeAlias = tuple[int, int, int]

# These colors differ for most kinds of color vision (Okabe and Ito).
INK: Color = (60, 60, 60)
AGENT: Color = (0, 114, 178)
GOAL: Color = (213, 94, 0)

_OVERSAMPLING = 2  # lines are drawn larger and scaled down, which smooths their edges


class Canvas:
    """A white image on which lines and circles are drawn in the units of the world.

    Args:
        x_range: World coordinates of the left and right edge.
        y_range: World coordinates of the lower and upper edge.
        width: Width of the image in pixels. The height follows, so that circles are round.
    """

    def __init__(self, *, x_range: tuple[float, float], y_range: tuple[float, float], width: int = 320) -> None:
        self._left, self._top = x_range[0], y_range[1]
        self._scale = width * _OVERSAMPLING / (x_range[1] - x_range[0])
        height = round(self._scale * (y_range[1] - y_range[0]) / _OVERSAMPLING)
        self._image = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), "white")
        self._draw = ImageDraw.Draw(self._image)

    def line(self, x: Iterable[float], y: Iterable[float], *, color: Color, width: int = 3) -> None:
        """Draws a line through points; `width` in pixels."""
        points = [self._pixel(*point) for point in zip(x, y)]
        self._draw.line(points, fill=color, width=width * _OVERSAMPLING, joint="curve")

    def circle(self, x: float, y: float, *, radius: float, color: Color) -> None:
        """Draws a filled circle; `radius` in units of the world."""
        column, row = self._pixel(x, y)
        self._draw.circle((column, row), radius * self._scale, fill=color)

    def image(self) -> np.ndarray:
        """Returns the image `[height, width, 3]`, uint8."""
        width, height = self._image.size
        size = width // _OVERSAMPLING, height // _OVERSAMPLING
        return np.asarray(self._image.resize(size, Image.Resampling.BOX))

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return (x - self._left) * self._scale, (self._top - y) * self._scale
