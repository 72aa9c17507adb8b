"""Tests of `ml3_tf.commands.losses`: what is shipped, cards, and what a loss has learned."""

import shutil
import sys

import pytest

from ml3_tf.commands.losses import list_losses, parse_fixed, read_card, show_loss
from ml3_tf.inspection import explain
from ml3_tf.saving import CorruptArtifactError, catalog


def test_losses_are_listed_with_mode_and_features():
    losses = {loss.name: loss for loss in list_losses()}
    assert losses["pointmass"].features == {"acceleration": 2, "state": 4, "goal": 2}
    assert losses["digits"].mode == "per_output" and losses["digits"].versions == [1]
    assert losses["sine"].purpose.startswith("A loss for the regression of one number")


def test_a_damaged_loss_is_not_listed_silently(artifact, monkeypatch):
    (artifact / "fingerprint.pb").write_bytes(b"other")
    shutil.copytree(artifact, artifact.parents[1] / "shipped" / "sine" / "1")
    monkeypatch.setattr(catalog, "SHIPPED", artifact.parents[1] / "shipped")
    with pytest.raises(CorruptArtifactError, match="fingerprint.pb"):
        list_losses()


@pytest.mark.parametrize("name", ["cosine", "../savedmodels/sine", ".", ""])
def test_only_names_of_shipped_losses_have_cards(name):
    with pytest.raises(
        FileNotFoundError, match=r"There is no model card for .* Expected the name of a shipped loss: \["
    ):
        read_card(name)


def test_a_loss_of_probabilities_is_explained_between_the_classes(make_loss, tmp_path):
    loss = make_loss(mode="per_output")
    folder = loss.export(tmp_path / "loss")
    shown = show_loss(str(folder))
    assert shown.formula == str(explain(loss, y_range=(0.01, 0.99), targets=(0, 1)))
    assert shown.region == "y_true in {0, 1}, y_pred in [0.01, 0.99]"
    assert len(shown.terms) == len(shown.coefficients)


def test_a_loss_of_ones_own_has_no_card_to_point_at(make_loss, tmp_path):
    folder = make_loss(features={"y_pred": 2, "state": 1}, name="own").export(tmp_path / "own")
    with pytest.raises(ValueError, match=r"^'own' cannot be shown\. A plane .* to the flag --fixed, as JSON\.$"):
        show_loss(str(folder))
    assert show_loss(str(folder), fixed={"y_pred": [None, 0.5]}).formula.startswith("loss ≈ ")


@pytest.mark.parametrize("text", ["{", "[1]", '{"state": 1}', '{"state": ["a"]}', '{"state": [true]}'])
def test_other_features_must_be_lists_of_numbers(text):
    with pytest.raises(ValueError, match="`--fixed` must be a JSON object with a list of numbers .* Received: "):
        parse_fixed(text)


def test_a_figure_needs_a_known_format_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match="(?i)format 'xyz' is not supported"):
        show_loss("sine", output=tmp_path / "loss.xyz")
    with pytest.raises(FileNotFoundError):
        show_loss("sine", output=tmp_path / "nowhere" / "loss.png")


def test_a_figure_needs_matplotlib_and_a_formula_does_not(tmp_path, monkeypatch):
    monkeypatch.delattr("ml3_tf.inspection.plot_meta_loss", raising=False)
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "ml3_tf.inspection.loss_plots"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert show_loss("sine").formula.startswith("loss ≈ ")
    with pytest.raises(ImportError, match=r"pip install 'ml3_tf\[plot\]'"):
        show_loss("sine", output=tmp_path / "loss.png")
