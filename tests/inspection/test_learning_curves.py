"""Tests of curves and tasks in `ml3_tf.inspection.learning_curves`: what is drawn, and the words of each error."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from ml3_tf.inspection import plot_learning_curve, plot_sine_tasks

TASKS = (np.array([[[2.0], [0.0], [1.0]]]), np.array([[[0.2], [0.0], [0.1]]]))


@pytest.fixture
def ax():
    return Figure().add_subplot()


def band_limits(ax):
    """Returns the lower and upper edge of the only band on `ax`, one value per distinct x."""
    (band,) = ax.collections
    vertices = np.concatenate([path.vertices for path in band.get_paths()])
    columns = [vertices[vertices[:, 0] == x, 1] for x in np.unique(vertices[:, 0])]
    return [column.min() for column in columns], [column.max() for column in columns]


def many_tasks(num_tasks):
    x = np.tile(np.linspace(-5.0, 5.0, 20), (num_tasks, 1))
    return x, np.arange(1, num_tasks + 1)[:, None] * np.sin(x)


# plot_learning_curve


def test_line_is_the_mean_and_band_one_standard_deviation(ax):
    curves = [[4.0, 2.0, 1.0], [2.0, 2.0, 5.0]]
    assert plot_learning_curve(curves, ax, label="learned", color="C3") is ax
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(line.get_ydata(), [3.0, 2.0, 3.0])
    # Deviations from the mean: +-1, 0, +-2, and two seeds, so these are the standard deviations too.
    lower, upper = band_limits(ax)
    np.testing.assert_allclose(lower, [2.0, 2.0, 1.0])
    np.testing.assert_allclose(upper, [4.0, 2.0, 5.0])
    assert line.get_label() == "learned"
    assert same_color(line.get_color(), "C3")
    assert same_color(ax.collections[0].get_facecolor()[0, :3], "C3")


@pytest.mark.parametrize("curves", [[3.0, 1.0], [[3.0, 1.0]]])
def test_one_seed_is_the_line_itself_without_band(ax, curves):
    plot_learning_curve(curves, ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [3.0, 1.0])
    assert not ax.collections


def test_steps_are_the_x_positions(ax):
    plot_learning_curve([[3.0, 1.0], [1.0, 1.0]], ax, steps=[10, 20])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [10, 20])


def test_default_color_follows_the_axis_and_colors_the_band(ax):
    for _ in range(2):
        plot_learning_curve([[3.0, 1.0], [1.0, 1.0]], ax)
    assert not same_color(ax.lines[0].get_color(), ax.lines[1].get_color())
    for line, band in zip(ax.lines, ax.collections):
        assert same_color(line.get_color(), band.get_facecolor()[0, :3])


def test_unlabeled_curve_is_not_in_the_legend(ax):
    plot_learning_curve([1.0, 2.0], ax)
    assert ax.get_legend_handles_labels() == ([], [])


def test_input_is_left_unchanged(ax):
    curves = np.array([[np.nan, 1.0], [1.0, 1.0]])
    expected = curves.copy()
    plot_learning_curve(curves, ax)
    np.testing.assert_array_equal(curves, expected)


def test_band_on_a_log_axis_ends_at_the_smallest_positive_value(ax):
    ax.set_yscale("log")
    # First step: mean 5, deviation sqrt(32) = 5.66, so the edge would be negative. Second: mean 3, deviation 0.82.
    plot_learning_curve([[13.0, 4.0], [1.0, 3.0], [1.0, 2.0]], ax)
    np.testing.assert_allclose(band_limits(ax)[0], [1.0, 3 - np.sqrt(2 / 3)])


def test_band_on_a_linear_axis_may_be_negative(ax):
    plot_learning_curve([[13.0], [1.0], [1.0]], ax)
    np.testing.assert_allclose(band_limits(ax)[0], [5 - np.sqrt(32)])


def test_band_on_a_log_axis_stays_below_its_line_when_a_seed_is_zero(ax):
    ax.set_yscale("log")
    plot_learning_curve([[0.0, 2.0], [2.0, 2.0]], ax)
    np.testing.assert_allclose(band_limits(ax)[0], [1.0, 2.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_with_a_non_finite_seed_is_a_gap(ax, bad):
    plot_learning_curve([[3.0, bad, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0]], ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2.0, np.nan, 1.0, 2.0])
    vertices = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    assert np.isfinite(vertices).all()
    assert 1.0 not in vertices[:, 0]


def test_a_mean_that_is_not_positive_is_a_gap_on_a_log_axis(ax):
    ax.set_yscale("log")
    plot_learning_curve([1.0, 0.0, 2.0], ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, np.nan, 2.0])


def test_a_single_point_is_marked(ax):
    plot_learning_curve([np.nan, 1.0], ax)
    plot_learning_curve([2.0, 1.0], ax)
    assert [line.get_marker() for line in ax.lines] == [".", "None"]


@pytest.mark.parametrize("curves", [[np.nan, np.inf], [[np.nan, np.nan], [np.inf, -np.inf]]])
def test_all_non_finite_is_refused(ax, curves):
    with pytest.raises(ValueError, match=r"`curves` must have a step .* Received: .* 0 of \d .* Remove the seeds"):
        plot_learning_curve(curves, ax)
    assert not ax.lines


def test_no_step_common_to_all_seeds_is_refused(ax):
    with pytest.raises(ValueError, match=r"every seed is finite\. Received: no such step; 2 of 4 values"):
        plot_learning_curve([[1.0, np.nan], [np.nan, 1.0]], ax)


def test_nothing_positive_on_a_log_axis_is_refused(ax):
    ax.set_yscale("log")
    with pytest.raises(ValueError, match=r"the mean positive\. Received: .* or use a linear axis"):
        plot_learning_curve([0.0, -1.0], ax)


@pytest.mark.parametrize("curves", [np.ones((2, 3, 4)), 1.0, [], np.ones((0, 3))])
def test_wrong_rank_or_empty_curves_are_refused(ax, curves):
    with pytest.raises(ValueError, match=r"`curves` must have the shape \[seeds, steps\].* Received: shape .* Reduce"):
        plot_learning_curve(curves, ax)


@pytest.mark.parametrize("curves", [[[1.0, 2.0], [1.0]], ["high", "low"]])
def test_ragged_or_non_numeric_curves_are_refused(ax, curves):
    with pytest.raises(ValueError, match=r"`curves` must be numbers .* Received: list .* the same length"):
        plot_learning_curve(curves, ax)


@pytest.mark.parametrize("steps", [[0, 1, 2], [[0, 1]], 3])
def test_steps_that_do_not_fit_are_refused(ax, steps):
    with pytest.raises(ValueError, match=r"`steps` must have the shape \(2,\)\. Received: shape .* or `None`"):
        plot_learning_curve([1.0, 2.0], ax, steps=steps)


# plot_sine_tasks


@pytest.mark.parametrize("squeeze", [(), (0,), (1,), (0, 1)])
def test_tasks_are_lines_sorted_by_x(ax, squeeze):
    tasks = [value[..., 0] if i in squeeze else value for i, value in enumerate(TASKS)]
    assert plot_sine_tasks(tasks, ax) is ax
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[0.0, 0.0], [1.0, 0.1], [2.0, 0.2]])


def test_every_task_is_sorted_by_its_own_x(ax):
    plot_sine_tasks(([[1.0, 0.0], [0.0, 1.0]], [[10.0, 20.0], [30.0, 40.0]]), ax)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[20.0, 10.0], [30.0, 40.0]]


def test_tasks_share_one_color_and_one_label(ax):
    plot_sine_tasks(many_tasks(4), ax, label="meta-test")
    assert len(ax.lines) == 4
    assert all(same_color(line.get_color(), ax.lines[0].get_color()) for line in ax.lines)
    assert ax.get_legend_handles_labels()[1] == ["meta-test"]
    plot_sine_tasks(many_tasks(2), ax, color="C5")
    assert all(same_color(line.get_color(), "C5") for line in ax.lines[4:])


@pytest.mark.parametrize(
    "tasks",
    [
        (np.ones((2, 3)), np.ones((2, 4))),
        (np.ones(3), np.ones(3)),
        (np.ones((2, 3, 2)), np.ones((2, 3, 2))),
        (np.ones((0, 3)), np.ones((0, 3))),
        (np.ones((2, 3)),) * 3,
        (),
    ],
)
def test_tasks_of_other_shapes_are_refused(ax, tasks):
    with pytest.raises(ValueError, match=r"`tasks` must be a pair \(x, y\) .* Received: shapes .* x\[None\]"):
        plot_sine_tasks(tasks, ax)


def test_ragged_tasks_are_refused(ax):
    with pytest.raises(ValueError, match=r"`tasks\[1\]` must be numbers of the shape \[N, B, 1\]"):
        plot_sine_tasks(([[1.0, 2.0]], [[1.0], [1.0, 2.0]]), ax)
