"""A loss in short: as data, as lines of text, and as a notebook shows it."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any

import keras

from ml3_tf.feature_layout import FROM_NETWORK

if TYPE_CHECKING:
    from ml3_tf.meta_loss._meta_loss import MetaLoss

DPI = 75  # of the figure: 14 inches are as wide as a notebook


def summarize(loss: MetaLoss) -> dict[str, Any]:
    """Returns a loss in short, as JSON can hold it.

    Args:
        loss: The loss.

    Returns:
        `name`, `mode`, `features` (name -> width), `base` (its configuration, or `None`), `num_weights`,
        `learned_rate` (a number, "network" or `None`) and `facts` (what it was learned with, or `None`).

    Example:

    >>> import ml3_tf
    >>> summarize(ml3_tf.MetaLoss.mlp((3,)))["num_weights"]
    12
    """
    rate = loss.learning_rate
    if loss.learned_rate is not None:
        log_rate: Any = keras.ops.convert_to_numpy(loss.learned_rate.log_rate)
        rate = math.exp(float(log_rate))
    weights = [weight for layer in loss.layers for weight in layer.weights]
    return {
        "name": loss.name,
        "mode": loss.mode,
        "features": dict(loss.features),
        "base": None if loss.base is None else loss.base.get_config(),
        "num_weights": sum(math.prod(weight.shape) for weight in weights),
        "learned_rate": rate,
        "facts": None if loss.facts is None else loss.facts.get_config(),
    }


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns what `summarize` returned as pairs of a label and a text.

    >>> import ml3_tf
    >>> summary_rows(summarize(ml3_tf.MetaLoss.mlp((3,))))[1]
    ('features', 'y_pred (1), y_true (1)')
    """
    base, rate = dict(summary["base"] or {}), summary["learned_rate"]
    arguments = ", ".join(f"{key}={value}" for key, value in base.items() if key != "name")
    rows = {
        "mode": summary["mode"],
        "features": ", ".join(f"{name} ({width})" for name, width in summary["features"].items()),
        "base": f"{base['name']}({arguments})" if base else "",
        "weights": f"{summary['num_weights']:,}",
        "learned rate": "from the network" if rate == FROM_NETWORK else "" if rate is None else f"{rate:.3g}",
        "learned with": _facts_text(summary["facts"]),
    }
    return [(label, text) for label, text in rows.items() if text]


def to_html(loss: MetaLoss) -> str:
    """Returns a loss as a notebook shows it: its summary, and the figure of `plot_meta_loss` if that can be drawn.

    It never raises: a loss that cannot be drawn is shown as text, with the reason. All text is escaped, as names may
    come from a file of somebody else.
    """
    try:
        rows = "".join(
            f"<tr><th>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>"
            for label, text in summary_rows(summarize(loss))
        )
        head = f"<strong>{html.escape(type(loss).__name__)} {html.escape(str(loss.name))}</strong>"
        return f"<div>{head}<table>{rows}</table>{_picture(loss)}</div>"
    except Exception:  # whatever a loss of others does: a display must not end the cell
        return f"<code>{html.escape(object.__repr__(loss))}</code>"


def _facts_text(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return ""
    parts = [str(facts["optimizer"])]
    if facts["learning_rates"] is not None:
        low, high = facts["learning_rates"]
        parts.append(f"rate {low:.3g}" if low == high else f"rates from {low:.3g} to {high:.3g}")
    parts.append(f"outputs are {facts['outputs']}")
    if facts["targets"] is not None:
        parts.append("targets from {:.3g} to {:.3g}".format(*facts["targets"]))
    return ", ".join(parts)


def _picture(loss: MetaLoss) -> str:
    """The figure, or the reason why there is none."""
    try:
        from ml3_tf import inspection

        picture = io.BytesIO()
        inspection.plot_meta_loss(loss).savefig(picture, format="png", dpi=DPI)
    except Exception as error:  # matplotlib or TensorFlow is missing, or a loss of several features
        return f"<p>No figure: {html.escape(str(error))}</p>"
    data = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="The loss and its gradient" style="max-width: 100%" src="data:image/png;base64,{data}">'
