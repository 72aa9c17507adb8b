"""Metadata and packaging of ml3_tf. Tool settings live in pyproject.toml, exact versions in requirements.lock."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
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


def read_version():
    text = (ROOT / "ml3_tf" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


MUJOCO = "mujoco>=3.2.7"  # the oldest that the batched simulators were tried with
RL = ["gymnasium[mujoco]>=1.2", MUJOCO]
PLOT = ["matplotlib>=3.9", "pillow>=10.1"]
SERVING = ["tensorflow-serving-api>=2.21"]
RECIPES = [*PLOT, MUJOCO, "scikit-learn>=1.5", "tyro>=0.9"]

setup(
    name="ml3_tf",
    version=read_version(),
    description="Meta-learned loss functions for Keras: a learned loss is a Keras loss, meta-training is fit",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="ml3_tf authors",
    license_expression="MIT",
    license_files=["LICENSE", "NOTICE"],
    keywords=["meta-learning", "learned loss", "keras", "tensorflow", "reinforcement learning"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["ml3_tf", "ml3_tf.*"]),
    package_data={"ml3_tf": ["envs/assets/**"]},
    cmdclass={"build_py": BuildWithShippedLosses},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "keras>=3.15.1",  # earlier releases carry holes in model loading
        "numpy>=1.26",
        "safetensors>=0.5",
        "tensorflow>=2.21",
        "tensorflow-probability>=0.25",
        "tf_keras>=2.21",  # imported, but not required, by tensorflow-probability 0.25
    ],
    extras_require={
        "rl": RL,
        "plot": PLOT,
        "recipes": RECIPES,
        "serving": SERVING,
        # The peers that benchmarks compare with: heavy, and so not in requirements.lock.
        "bench": ["jax>=0.7", "torch>=2.6", "stable-baselines3>=2.7", "tyro>=0.9"],
        # setuptools: `make venv` installs the checkout without build isolation.
        "test": [*RL, *RECIPES, *SERVING, "pytest>=8.3", "pytest-xdist>=3.7", "ruff>=0.14", "setuptools>=77"],
    },
)
