"""Tests of `ml3_tf.saving.catalog`: the shipped losses are listed with versions and purpose."""

import shutil

import pytest

from ml3_tf import list_meta_losses
from ml3_tf.saving import ShippedLoss, catalog


@pytest.fixture
def shipped(pristine, tmp_path, monkeypatch):
    """A folder of two shipped losses, one of them with a card and two versions."""
    for name in ("sine", "a"):
        shutil.copytree(pristine, tmp_path / name / "1")
    shutil.copytree(pristine, tmp_path / "sine" / "10")
    (tmp_path / "sine" / "README.md").write_text("# Sine\n\nFits a sine\nfast.\n\nMore.")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not a loss")
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    return tmp_path


def test_shipped_losses_are_returned_sorted_by_name(shipped, capsys):
    losses = list_meta_losses()
    assert losses == (ShippedLoss("a", (1,), ""), ShippedLoss("sine", (1, 10), "Fits a sine fast."))
    assert losses.names == ["a", "sine"]
    assert capsys.readouterr().out == ""


def test_shipped_losses_are_displayed_one_on_a_line(shipped):
    assert repr(list_meta_losses()) == str(list_meta_losses())
    assert repr(list_meta_losses()) == "a     version 1\nsine  version 1, 10  Fits a sine fast."


def test_a_notebook_shows_a_table_in_which_no_text_becomes_html(shipped):
    (shipped / "a" / "README.md").write_text("# A\n\n<script>x</script> & more.")
    table = list_meta_losses()._repr_html_()
    assert table.startswith("<table><tr><td>name</td><td>versions</td><td>purpose</td></tr>")
    assert "<tr><td>sine</td><td>1, 10</td><td>Fits a sine fast.</td></tr>" in table
    assert "<script" not in table and "&lt;script&gt;x&lt;/script&gt; &amp; more." in table


def test_nothing_shipped_is_an_empty_tuple(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "nowhere")
    assert list_meta_losses() == ()
    assert list_meta_losses().names == []
    assert repr(list_meta_losses()) == "No learned losses are installed."


def test_versions_are_the_numbered_folders(tmp_path):
    for name in ("1", "12", "notes", ".unfinished-1", "-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert sorted(catalog.find_versions(tmp_path)) == [1, 12]
