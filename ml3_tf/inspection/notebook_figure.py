"""A figure that a notebook shows."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A `matplotlib.figure.Figure` that a notebook shows, whether or not pyplot was imported.

    Matplotlib teaches notebooks to show figures when pyplot is imported. The figures of this package are bound to no
    display and need no pyplot, so they bring their picture along.

    Example:

    >>> NotebookFigure().add_subplot().figure._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes:
        """Returns the figure as a notebook shows it."""
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
