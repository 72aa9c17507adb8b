"""Tests of `plot_meta_learning` in `ml3_tf.inspection.learning_curves`: its panels, and the words of each error."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from ml3_tf.inspection import learning_curves, plot_meta_learning

TASKS = (np.array([[[2.0], [0.0], [1.0]]]), np.array([[[0.2], [0.0], [0.1]]]))
CURVES = {"learned": [1.0, 0.5]}


def many_tasks(num_tasks):
    x = np.tile(np.linspace(-5.0, 5.0, 20), (num_tasks, 1))
    return x, np.arange(1, num_tasks + 1)[:, None] * np.sin(x)


def lines_by_label(ax):
    return {line.get_label(): line for line in ax.lines}


@pytest.fixture
def figure():
    meta_train = {"learned": [[4.0, 1.0], [2.0, 1.0]], "task loss": [4.0, 3.0]}
    meta_test = {"tuned": ([0, 10], [[4.0, 2.0]]), "same rate": [[4.0, 3.5]], "learned": [[4.0, 0.5]]}
    return plot_meta_learning(TASKS, many_tasks(3), meta_train=meta_train, meta_test=meta_test, title="Sine")


def test_four_panels_with_titles_labels_and_scales(figure):
    assert isinstance(figure, Figure)
    np.testing.assert_allclose(figure.get_size_inches(), [14, 3.4])
    assert figure.dpi == 150
    assert figure.get_suptitle() == "Sine"
    assert [ax.get_title() for ax in figure.axes] == [
        "(a) meta-train task",
        "(b) meta-test tasks",
        "(c) loss on meta-train task",
        "(d) loss on meta-test tasks",
    ]
    assert [ax.get_xlabel() for ax in figure.axes] == ["x", "x", "outer iterations", "gradient steps"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["y", "y", "task loss (MSE)", "task loss (MSE)"]
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "linear", "log", "log"]


def test_panels_hold_their_data(figure):
    assert [len(ax.lines) for ax in figure.axes] == [1, 3, 2, 3]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.0, 0.1, 0.2])
    np.testing.assert_allclose(lines_by_label(figure.axes[2])["learned"].get_ydata(), [3.0, 1.0])
    tuned = lines_by_label(figure.axes[3])["tuned"]
    np.testing.assert_allclose(tuned.get_xydata(), [[0, 4.0], [10, 2.0]])
    np.testing.assert_allclose(lines_by_label(figure.axes[3])["learned"].get_xdata(), [0, 1])


def test_task_panels_share_their_frame(figure):
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_names_have_the_colors_of_the_paper(figure):
    meta_train, meta_test = (lines_by_label(ax) for ax in figure.axes[2:])
    assert {name: line.get_color() for name, line in meta_train.items()} == {"learned": "C0", "task loss": "C1"}
    assert {name: line.get_color() for name, line in meta_test.items()} == {
        "learned": "C0",
        "same rate": "C1",
        "tuned": "C2",
    }
    assert len({line.get_linestyle() for line in meta_test.values()}) == 3  # readable without color


def test_other_names_get_the_next_free_color_and_keep_it():
    curve = [2.0, 1.0]
    meta_train = {"learned": curve, "Adam": curve}
    meta_test = {"Adam": curve, "same rate": curve, "task loss": curve, "learned": curve}
    axes = plot_meta_learning(TASKS, TASKS, meta_train=meta_train, meta_test=meta_test).axes
    colors = {name: line.get_color() for name, line in lines_by_label(axes[3]).items()}
    assert colors == {"learned": "C0", "same rate": "C1", "Adam": "C2", "task loss": "C3"}
    assert lines_by_label(axes[2])["Adam"].get_color() == "C2"


def test_legend_names_each_method_once_and_hides_no_panel(figure):
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["learned", "task loss", "tuned", "same rate"]
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert not any(box.overlaps(ax.get_tightbbox()) for ax in figure.axes)
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_panels_do_not_overlap(figure):
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


def test_figure_leaves_no_global_state():
    settings = dict(matplotlib.rcParams)
    plot_meta_learning(TASKS, TASKS, meta_train=CURVES, meta_test=CURVES)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []  # pyplot does not know the figure, so no display is asked for
    assert not hasattr(learning_curves, "pyplot") and not hasattr(learning_curves, "plt")


def test_title_is_optional_and_image_has_the_size():
    figure = plot_meta_learning(TASKS, TASKS, meta_train=CURVES, meta_test=CURVES)
    assert figure.get_suptitle() == ""
    image = io.BytesIO()
    figure.savefig(image)
    # The PNG header holds width and height in bytes 16 to 24: 14 x 3.4 inches at 150 dpi.
    header = image.getvalue()[16:24]
    assert (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")) == (2100, 510)


@pytest.mark.parametrize("empty", ["meta_train", "meta_test"])
def test_empty_mapping_is_refused(empty):
    curves = {"meta_train": {"learned": [1.0]}, "meta_test": {"learned": [1.0]}, empty: {}}
    with pytest.raises(ValueError, match=rf"`{empty}` must map at least one name to curves\. Received: {{}}\. Add"):
        plot_meta_learning(TASKS, TASKS, **curves)


def test_errors_name_the_entry():
    with pytest.raises(ValueError, match=r"In `meta_test\['tuned'\]`: `steps` must have the shape \(2,\)"):
        plot_meta_learning(TASKS, TASKS, meta_train=CURVES, meta_test={"tuned": ([0, 1, 2], [1.0, 0.5])})
    with pytest.raises(ValueError, match=r"In `meta_train\['learned'\]`: `curves` must have a step"):
        plot_meta_learning(TASKS, TASKS, meta_train={"learned": [np.nan]}, meta_test=CURVES)
    with pytest.raises(ValueError, match=r"In `test_tasks`: `tasks` must be a pair"):
        plot_meta_learning(TASKS, (np.ones(3), np.ones(3)), meta_train=CURVES, meta_test=CURVES)
    with pytest.raises(ValueError, match=r"In `train_task`: `tasks` must be a pair"):
        plot_meta_learning((np.ones(3), np.ones(3)), TASKS, meta_train=CURVES, meta_test=CURVES)


def test_tuple_of_seeds_is_refused():
    seeds = ([1.0, 0.5], [1.0, 0.5], [1.0, 0.5])
    with pytest.raises(ValueError, match=r"`meta_train\['learned'\]` must be .* a tuple of 3 items\. Stack the seeds"):
        plot_meta_learning(TASKS, TASKS, meta_train={"learned": seeds}, meta_test=CURVES)
