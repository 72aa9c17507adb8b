"""Tests of `ml3_tf.inspection.notebook_figure`: a notebook gets a picture, without pyplot."""

import io

import numpy as np
from PIL import Image

from ml3_tf.inspection import plot_adaptation, plot_meta_learning, plot_meta_loss
from ml3_tf.inspection.notebook_figure import NotebookFigure


def test_a_figure_brings_its_picture_along():
    figure = NotebookFigure(figsize=(3, 2), dpi=50)
    figure.add_subplot().plot([0, 1])
    picture = Image.open(io.BytesIO(figure._repr_png_()))
    assert picture.size == (150, 100)
    assert np.ptp(np.asarray(picture)) > 100


def test_figures_of_the_package_are_of_this_kind():
    assert isinstance(plot_meta_loss("mse"), NotebookFigure)
    for function in (plot_adaptation, plot_meta_learning):
        assert function.__globals__["NotebookFigure"] is NotebookFigure
