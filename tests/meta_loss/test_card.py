"""Tests of `ml3_tf.meta_loss._card`: a loss in short, and as a notebook shows it."""

import base64
import json
import re
import sys

import pytest

import ml3_tf
from ml3_tf import MetaLoss, TrainingFacts
from ml3_tf.meta_loss import summarize, summary_rows

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def shown(loss):
    return loss._repr_html_()


def test_a_summary_counts_the_weights_and_holds_the_rate(make_loss):
    loss = make_loss((5,), learning_rate=0.1)
    loss.facts = TrainingFacts("SGD", (1e-3, 1e-2), "numbers", (-5.0, 5.0))
    summary = summarize(loss)
    assert summary["num_weights"] == (2 * 5 + 5) + 5 + 1 == sum(v.numpy().size for v in loss.trainable_variables)
    assert summary["learned_rate"] == pytest.approx(2.718281828**-0.7)
    assert json.loads(json.dumps(summary))["facts"]["optimizer"] == "SGD"
    assert summary_rows(summary) == [
        ("mode", "per_sample"),
        ("features", "y_pred (1), y_true (1)"),
        ("weights", "21"),
        ("learned rate", "0.497"),
        ("learned with", "SGD, rates from 0.001 to 0.01, outputs are numbers, targets from -5 to 5"),
    ]


@pytest.mark.parametrize(
    "loss, row",
    [
        (MetaLoss.around("huber"), ("base", "huber(delta=1.0)")),
        (MetaLoss.around("mse"), ("base", "mean_squared_error()")),
        (MetaLoss.mlp((3,), learning_rate="network"), ("learned rate", "from the network")),
        (ml3_tf.load_meta_loss("ant_model_free"), ("learned with", "Adam, outputs are numbers")),
    ],
)
def test_a_row_is_there_if_it_has_something_to_say(loss, row):
    rows = summary_rows(summarize(loss))
    assert row in rows
    assert len(rows) == len(dict(rows)) and all(text for _, text in rows)


def test_a_notebook_shows_text_and_figure():
    text = shown(ml3_tf.load_meta_loss("sine"))
    assert "<strong>MetaLoss sine</strong>" in text
    assert "<tr><th>learned rate</th><td>68.1</td></tr>" in text
    [picture] = re.findall(r'src="data:image/png;base64,([\w+/=]+)"', text)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert len(picture) < 400_000


@pytest.mark.parametrize("name, reason", [("shaped_sine", "scores examples together"), ("pointmass", "one prediction")])
def test_a_loss_that_cannot_be_drawn_is_shown_as_text(name, reason):
    text = shown(ml3_tf.load_meta_loss(name))
    assert "<img" not in text and "<p>No figure: " in text and reason in text
    assert "<tr><th>features</th>" in text


def test_without_matplotlib_it_is_shown_as_text(make_loss, monkeypatch):
    monkeypatch.delattr("ml3_tf.inspection.plot_meta_loss", raising=False)
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "ml3_tf.inspection.loss_plots"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = shown(make_loss())
    assert "<img" not in text and "pip install &#x27;ml3_tf[plot]&#x27;" in text


def test_no_text_of_a_loss_becomes_html(make_loss):
    loss = make_loss(features={HOSTILE: 1, HOSTILE + "2": 1}, name=HOSTILE)
    loss.facts = TrainingFacts(HOSTILE)
    text = shown(loss)
    assert HOSTILE not in text and "onerror" in text
    without_picture = re.sub(r'src="data:image/png;base64,[\w+/=]+"', "", text)
    tags = set(re.findall(r"</?(\w+)", without_picture))
    assert tags <= {"div", "strong", "table", "tr", "th", "td", "img", "p"}
    assert text.count("<img") <= 1 and "<img src=x" not in text


def test_a_hostile_name_in_a_file_is_escaped(artifact, edit_json):
    edit_json(
        artifact, "assets.extra/meta_loss.json", lambda description: description.update(name="<img src=x onerror=y>")
    )
    text = shown(ml3_tf.load_meta_loss(artifact))
    assert "&lt;img src=x onerror=y&gt;" in text and "<img src=x" not in text


def test_it_never_raises():
    class Broken(MetaLoss):
        @property
        def layers(self):
            raise RuntimeError("broken")

    loss = object.__new__(Broken)
    assert shown(loss).startswith("<code>&lt;") and "Broken object" in shown(loss)
