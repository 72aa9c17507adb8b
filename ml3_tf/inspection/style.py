"""The look that all figures share."""

LINE_STYLES = ("-", "--", "-.", ":")  # a second cue beside color: for color-blind readers and gray prints
TEXT_SIZE = 13  # points; a README shows a 14-inch figure at half its size


def style_axes(axes):
    """Gives every axis the text size, the light grid and the open frame of the package's figures.

    Args:
        axes: Iterable of `matplotlib.axes.Axes`, titles and labels already set.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().add_subplot()
        >>> style_axes([ax])
        >>> ax.title.get_size()
        13.0
    """
    for ax in axes:
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_size(TEXT_SIZE)
        ax.tick_params(labelsize=TEXT_SIZE - 1)
        ax.grid(color="0.9", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
