"""Tests of `ml3_tf.inspection.style`: all axes have one style."""

from matplotlib.figure import Figure

from ml3_tf.inspection import TEXT_SIZE, style_axes


def test_every_axis_gets_text_size_grid_and_open_frame():
    axes = Figure().subplots(1, 2)
    style_axes(axes)
    for ax in axes:
        assert {text.get_size() for text in (ax.title, ax.xaxis.label, ax.yaxis.label)} == {TEXT_SIZE}
        assert ax.xaxis.get_gridlines()[0].get_visible()
        assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
        assert ax.spines["left"].get_visible() and ax.spines["bottom"].get_visible()
