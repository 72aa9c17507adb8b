"""Ships the learned losses of the checkout inside the wheel. All metadata is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithShippedLosses(build_py):
    """Puts the checkout's `savedmodels/` inside the built package, where `load_meta_loss` looks once it is installed.

    An editable install reads the folder in place, so nothing is copied for it.
    """

    def run(self):
        super().run()
        source = ROOT / "savedmodels"
        if self.editable_mode or not source.is_dir():
            return
        target = Path(self.build_lib, "ml3_tf", "savedmodels")
        shutil.rmtree(target, ignore_errors=True)  # a loss deleted since the last build must not be shipped again
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))


setup(cmdclass={"build_py": BuildWithShippedLosses})
