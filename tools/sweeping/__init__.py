"""The parts of `tools/sweep.py`. They use those of the recipes, which this module makes importable."""

import sys
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

if str(RECIPES) not in sys.path:
    sys.path.insert(0, str(RECIPES))
