"""Figures of a learned loss, of how it was learned and of a diagnosis; and the gradient as a formula (`explain`).

The functions whose names start with `plot_` need matplotlib, which is imported when you first ask for one of them. The
others work without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ml3_tf.extras import needed_for
from ml3_tf.inspection.closed_form import evaluate_on_plane, explain
from ml3_tf.inspection.explanation import Explanation
from ml3_tf.inspection.style import LINE_STYLES, NAMED_COLORS, TEXT_SIZE, style_axes

if TYPE_CHECKING:
    from ml3_tf.inspection.adaptation import plot_adaptation
    from ml3_tf.inspection.diagnosis_figure import plot_diagnosis
    from ml3_tf.inspection.learning_curves import plot_learning_curve, plot_meta_learning, plot_sine_tasks
    from ml3_tf.inspection.loss_plots import plot_meta_loss

__all__ = [
    "LINE_STYLES",
    "NAMED_COLORS",
    "TEXT_SIZE",
    "Explanation",
    "evaluate_on_plane",
    "explain",
    "plot_adaptation",
    "plot_diagnosis",
    "plot_learning_curve",
    "plot_meta_learning",
    "plot_meta_loss",
    "plot_sine_tasks",
    "style_axes",
]

_NEED_MATPLOTLIB = {
    "plot_adaptation": "adaptation",
    "plot_diagnosis": "diagnosis_figure",
    "plot_learning_curve": "learning_curves",
    "plot_meta_learning": "learning_curves",
    "plot_meta_loss": "loss_plots",
    "plot_sine_tasks": "learning_curves",
}


def __getattr__(name: str) -> Any:
    if name not in _NEED_MATPLOTLIB:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    with needed_for(f"`ml3_tf.inspection.{name}`", "matplotlib", extra="plot"):
        importlib.import_module("matplotlib")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_NEED_MATPLOTLIB[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
