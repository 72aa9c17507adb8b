"""Tests of `ml3_tf.inspection`: public names, with and without matplotlib."""

import subprocess
import sys
from pathlib import Path

import pytest

from ml3_tf import inspection

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
from ml3_tf import inspection
print(inspection.explain("mse"))
try:
    inspection.plot_meta_loss
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("name", inspection.__all__)
def test_public_names_are_there(name):
    assert getattr(inspection, name) is not None
    assert name in dir(inspection)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ml3_tf.inspection' has no attribute 'plot_loss'"):
        _ = inspection.plot_loss


def test_matplotlib_is_needed_for_figures_alone():
    command = [sys.executable, "-c", WITHOUT_MATPLOTLIB]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-2:] == [
        "loss ≈ 1.00·e² (R² = 1.000 for y in [-5, 5])",
        "`ml3_tf.inspection.plot_meta_loss` needs matplotlib: pip install 'ml3_tf[plot]'",
    ]
