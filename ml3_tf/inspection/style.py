"""The style that all figures share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_STYLES = ("-", "--", "-.", ":")  # a second cue beside color: for color-blind readers and gray prints
TEXT_SIZE = 13  # points; a README shows a 14-inch figure at half its size
# Blue, orange and green of ML3's Figure 2. "task loss" and "same rate" name the same baseline, so they share a color.
NAMED_COLORS: dict[str, str] = {"learned": "C0", "same rate": "C1", "task loss": "C1", "tuned": "C2"}


def style_axes(axes: Iterable[Axes]) -> None:
    """Gives every axis the text size, the light grid and the open frame of the package's figures.

    Args:
        axes: The axes, with their titles and labels already set.

    Example:

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot()
    >>> style_axes([ax])
    >>> ax.title.get_size()
    13.0
    """
    for ax in axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_fontsize(TEXT_SIZE)
        ax.tick_params(labelsize=TEXT_SIZE - 1)
        ax.grid(color="0.9", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
