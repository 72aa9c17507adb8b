"""Tests of the figure of a diagnosis."""

import math

import pytest
from matplotlib.colors import to_rgba

from ml3_tf import Diagnosis
from ml3_tf.diagnosis import Finding, LayerCheck, VariableCheck
from ml3_tf.inspection import plot_diagnosis
from ml3_tf.inspection.diagnosis_figure import BAD, GOOD, UNKNOWN


@pytest.fixture
def axes():
    diagnosis = Diagnosis(
        variables=(
            VariableCheck("kernel", (2, 4), 0.1, 1e-9, "agrees"),
            VariableCheck("a/name/that/is/far/too/long/for/an/axis", (4,), 0.0, 1.0, "cut"),
            VariableCheck("rate", (), math.nan, math.nan, "unsettled"),
        ),
        layers=(LayerCheck("norm", "learner: Norm", 1e-9, 0.25, 0.0, "second derivative is wrong"),),
        by_steps={1: 0.1, 2: 0.3, 5: math.inf},
        drift={0: 4.0, 5: 2.0, 15: 9.0, 50: math.nan},
        inner_steps=5,
        findings=(Finding("Learners drift away.", "seen", "do"), Finding("The meta-gradient explodes.", "seen", "do")),
    )
    figure = plot_diagnosis(diagnosis)
    assert figure.get_suptitle() == "Diagnosis: Learners drift away; The meta-gradient explodes"
    return figure.axes


def colors(ax):
    return [patch.get_facecolor() for patch in ax.patches]


def test_bars_show_norms_and_errors_in_the_colors_of_their_verdicts(axes):
    norms, errors, *_ = axes
    assert colors(norms) == [to_rgba(color) for color in (GOOD, BAD, UNKNOWN)]
    names = [label.get_text() for label in norms.get_yticklabels()]
    assert names[0] == "kernel" and names[1].startswith("…") and len(names[1]) == 28
    assert [text.get_text() for text in norms.texts] == ["0", "not known"]
    assert [label.get_text() for label in errors.get_yticklabels()][:2] == [
        "norm (learner), 2nd",
        "norm (learner), 1st",
    ]
    assert colors(errors) == [to_rgba(color) for color in (BAD, GOOD, GOOD, BAD, UNKNOWN)]


def test_lines_show_what_is_finite(axes):
    *_, steps, drift = axes
    assert steps.lines[0].get_ydata().tolist() == [0.1, 0.3] and steps.lines[1].get_ydata().tolist() == [0.1, 0.2]
    assert drift.lines[0].get_xydata().tolist() == [[0, 4.0], [5, 2.0], [15, 9.0]]
    assert steps.lines[0].get_color() == drift.lines[0].get_color() == BAD


def test_a_healthy_one_says_so():
    healthy = Diagnosis(variables=(VariableCheck("kernel", (2, 4), 0.1, 1e-9, "agrees"),), by_steps={1: 0.1})
    assert plot_diagnosis(healthy).get_suptitle() == "Diagnosis: nothing is wrong"


def test_an_empty_one_is_refused():
    with pytest.raises(ValueError, match="has no variables"):
        plot_diagnosis(Diagnosis())


def test_what_explodes_beyond_the_axis_is_drawn_at_its_end(tmp_path):
    kernel = VariableCheck("kernel", (2, 4), 1e300, 1e250, "differs")
    rate = VariableCheck("rate", (), math.inf, math.nan, "unsettled")
    diagnosis = Diagnosis(
        variables=(kernel, rate), by_steps={1: 0.1, 2: 1e200, 5: 1e308}, drift={0: 4.0, 5: 1e307}, inner_steps=5
    )
    figure = plot_diagnosis(diagnosis)
    figure.savefig(tmp_path / "figure.png")
    norms, _, steps, drift = figure.axes
    assert [text.get_text() for text in norms.texts] == ["above 1e+60"] * 2
    assert steps.lines[0].get_ydata().tolist() == [0.1, 1e60, 1e60] and drift.lines[0].get_ydata()[-1] == 1e60
