"""Tests of `ml3_tf.inspection.loss_plots`: the panels of each figure, and the words of each error."""

import keras
import matplotlib
import numpy as np
import pytest
from keras import ops
from matplotlib import pyplot
from matplotlib.figure import Figure

from ml3_tf import MetaLoss
from ml3_tf.inspection import loss_plots, plot_meta_loss


def huber_like(y_true, y_pred):
    """Gradient `100 tanh(error)`: a slope of 100 at zero, and never more than 100."""
    error = y_pred[..., 0] - y_true[..., 0]
    return 100 * (ops.softplus(2 * error) - error) + y_true[..., 0] ** 2


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.lines}


def panels(figure):
    """The axes with a title, (a) first; color bars have none."""
    return sorted((ax for ax in figure.axes if ax.get_title()), key=lambda ax: ax.get_title()[:3])


def titles(figure):
    return [ax.get_title() for ax in panels(figure)]


def explanation(figure):
    """The line of text below the title."""
    return next(text for text in figure.texts if text.get_text().startswith("loss ≈"))


def surface(ax):
    """The values that a panel shows, `[y_pred, y_true]`."""
    mesh = next(artist for artist in ax.collections if hasattr(artist, "get_array") and artist.get_array() is not None)
    return np.asarray(mesh.get_array()).reshape(loss_plots.GRID_SIZE, loss_plots.GRID_SIZE)


@pytest.fixture(scope="module")
def figure():
    return plot_meta_loss(huber_like)


@pytest.fixture(scope="module")
def class_figure():
    return plot_meta_loss(MetaLoss.mlp(mode="per_output"))


# Regression


def test_regression_panels_with_titles_and_labels(figure):
    assert isinstance(figure, Figure)
    np.testing.assert_allclose(figure.get_size_inches(), [14, 6.8])
    assert figure.dpi == 150
    names = titles(figure)
    assert names.pop(2).startswith("(c) mse × ")
    assert names == ["(a) learned loss", "(b) its gradient", "(d) its gradient", "(e) gradient against the error"]
    assert [ax.get_xlabel() for ax in panels(figure)[:5]] == ["", "", "y_true", "y_true", "y_pred − y_true"]
    assert [ax.get_ylabel() for ax in panels(figure)[:5]] == ["y_pred", "", "y_pred", "", "d loss / d y_pred"]


def test_surfaces_hold_value_and_gradient(figure):
    grid = np.linspace(-5, 5, loss_plots.GRID_SIZE)
    y_true, y_pred = np.meshgrid(grid, grid)
    # The loss is counted from its value at y_pred = y_true, so y_true² is gone and log cosh 0 = 0 remains.
    np.testing.assert_allclose(surface(panels(figure)[0]), 100 * np.log(np.cosh(y_pred - y_true)), atol=2e-2)
    np.testing.assert_allclose(surface(panels(figure)[1]), 100 * np.tanh(y_pred - y_true), atol=1e-2)


def test_task_loss_is_scaled_to_the_slope_near_zero(figure):
    # The slopes at zero are 100 and 2, hence a factor near 50; within the errors it is fitted on tanh bends a little.
    scale = surface(panels(figure)[3])[60, 40] / (2 * 2.0)  # y_pred = 1, y_true = -1
    assert scale == pytest.approx(50, rel=0.1)
    assert f"mse × {scale:.3g}" in titles(figure)[2]


def test_slices_are_the_gradient_against_the_error(figure):
    lines = lines_by_label(panels(figure)[4])
    for target in (-2.5, 0, 2.5):
        error, gradient = lines[f"learned, y_true = {target:g}"].get_data()
        np.testing.assert_allclose([error[0], error[-1]], [-5 - target, 5 - target])
        np.testing.assert_allclose(gradient, 100 * np.tanh(error), atol=1e-2)
    label = titles(figure)[2].removeprefix("(c) ")
    error, gradient = lines[label].get_data()
    np.testing.assert_allclose(gradient / gradient[-1], error / error[-1], atol=1e-6)  # a straight line


def test_frame_of_the_slices_is_that_of_the_learned_loss(figure):
    # The task loss leaves it where the learned loss saturates.
    assert panels(figure)[4].get_ylim()[1] == pytest.approx(125, rel=1e-3)


def test_learned_and_task_panels_share_their_colors(figure):
    meshes = [ax.collections[0] for ax in panels(figure)[:4]]
    assert meshes[0].get_clim() == meshes[2].get_clim()
    assert meshes[1].get_clim() == meshes[3].get_clim()
    low, high = meshes[1].get_clim()
    assert low == -high  # white is a gradient of zero


def test_targets_are_chosen_by_the_caller():
    ax = panels(plot_meta_loss("mse", targets=[1.0]))[4]
    assert [label for label in lines_by_label(ax) if label.startswith("learned")] == ["learned, y_true = 1"]


def test_task_loss_and_range_are_chosen_by_the_caller():
    figure = plot_meta_loss("mse", task_loss=keras.losses.MeanAbsoluteError(), y_range=(0, 2))
    assert titles(figure)[2].startswith("(c) mean_absolute_error × ")
    assert panels(figure)[0].get_xlim() == (0, 2)
    assert "y in [0, 2]" in explanation(figure).get_text()


def test_title_and_explanation_stand_above_the_panels():
    figure = plot_meta_loss("mse", title="Squared error")
    assert figure.get_suptitle().strip() == "Squared error"
    assert explanation(figure).get_text() == "loss ≈ 1.00·e² (R² = 1.000 for y in [-5, 5])"
    figure.draw_without_rendering()
    line = explanation(figure).get_window_extent()
    assert not any(line.overlaps(ax.get_tightbbox()) for ax in figure.axes)


def test_panels_and_legend_do_not_overlap(figure):
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in panels(figure)[:5]]
    boxes.append(figure.legends[0].get_window_extent())
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_a_loss_without_a_gradient_is_drawn():
    figure = plot_meta_loss(lambda y_true, y_pred: 0 * y_pred[..., 0])
    assert "loss ≈ 0" in explanation(figure).get_text()
    figure.draw_without_rendering()


def test_a_loss_of_more_features_is_drawn_where_the_others_are_fixed():
    loss = MetaLoss.mlp(features={"y_pred": 1, "state": 2, "goal": 1})
    with pytest.raises(ValueError, match=r"one of \['state', 'goal'\] together.*fixed=\{'state': \[0\.0, 0\.0\]\}"):
        plot_meta_loss(loss)
    assert len(titles(plot_meta_loss(loss, fixed={"state": [0.1, 0.2]}))) == 5


# Classification


def test_per_output_loss_has_two_panels_for_each_class(class_figure):
    np.testing.assert_allclose(class_figure.get_size_inches(), [14, 4])
    assert titles(class_figure) == [
        "(a) loss for y_true = 0",
        "(b) gradient for y_true = 0",
        "(c) loss for y_true = 1",
        "(d) gradient for y_true = 1",
    ]
    assert "y_true in {0, 1}, y_pred in [0.01, 0.99]" in explanation(class_figure).get_text()
    names = [text.get_text() for text in class_figure.legends[0].get_texts()]
    assert names[0] == "learned" and names[1].startswith("binary_crossentropy × ")


def test_class_panels_hold_value_and_gradient():
    figure = plot_meta_loss(lambda y_true, y_pred: 3 * (y_pred - y_true)[..., 0] ** 2, task="classification")
    grid = np.linspace(0.01, 0.99, loss_plots.GRID_SIZE)
    curves = [ax.lines[0].get_ydata() for ax in figure.axes]
    # The loss is counted from its value at the end of the range that is next to the class.
    np.testing.assert_allclose(curves[0], 3 * grid**2 - 3 * 0.01**2, atol=1e-5)
    np.testing.assert_allclose(curves[1], 6 * grid, atol=1e-5)
    np.testing.assert_allclose(curves[2], 3 * (1 - grid) ** 2 - 3 * 0.01**2, atol=1e-5)
    np.testing.assert_allclose(curves[3], -6 * (1 - grid), atol=1e-5)


def test_cross_entropy_lies_on_itself():
    figure = plot_meta_loss("binary_crossentropy", task="classification")
    assert figure.legends[0].get_texts()[1].get_text() == "binary_crossentropy × 1"
    for ax in panels(figure):
        learned, task = (line.get_ydata() for line in ax.lines[:2])
        np.testing.assert_allclose(learned, task, rtol=1e-4, atol=1e-4)


def test_per_output_loss_can_be_drawn_as_a_regression():
    assert len(titles(plot_meta_loss(MetaLoss.mlp(mode="per_output"), task="regression"))) == 5


# Errors and global state


def test_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"`task` must be one of \['regression'.* Received: task='ranking'"):
        plot_meta_loss("mse", task="ranking")


@pytest.mark.parametrize("targets", [[], [0, 1, 2, 3, 4]])
def test_zero_or_too_many_targets_are_refused(targets):
    with pytest.raises(ValueError, match=r"`targets` must be one to 4 numbers\. Received: \["):
        plot_meta_loss("mse", targets=targets)


def test_an_invalid_range_is_refused():
    with pytest.raises(ValueError, match=r"`y_range` must be a pair"):
        plot_meta_loss("mse", y_range=(1, 0))


def test_figure_leaves_no_global_state():
    settings = dict(matplotlib.rcParams)
    plot_meta_loss("mse")
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []
    assert not hasattr(loss_plots, "pyplot") and not hasattr(loss_plots, "plt")
