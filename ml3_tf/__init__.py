"""Learned loss functions for Keras: meta-train a loss with `MetaTrainer.fit`, then use it in any `model.compile`.

A learned loss runs on every Keras backend, meta-training on TensorFlow. The parts that need TensorFlow are imported
when they are first asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ml3_tf.quiet_start import hide_notices, is_own_command

if is_own_command(sys.argv, sys.orig_argv):
    hide_notices()

# At once: a saved model that was compiled with a learned loss needs the class.
from ml3_tf.meta_loss import LearnedRate, LossPerHead, MetaLoss, TrainingFacts, check_use

if TYPE_CHECKING:
    from ml3_tf.arguments import LossInputs
    from ml3_tf.datasets import sine_tasks
    from ml3_tf.diagnosis import Diagnosis
    from ml3_tf.hosts import join_hosts
    from ml3_tf.inner_optimizer import StopScaleGradient
    from ml3_tf.learner import Learner, Parameters
    from ml3_tf.meta_testing import meta_test
    from ml3_tf.meta_trainer import MetaTrainer
    from ml3_tf.outer_loop import AdaptLoss, Checkpoint, EvolutionStrategies, TaskLoss
    from ml3_tf.saving import list_meta_losses, load_meta_loss

__version__ = "0.2.0"
__all__ = [
    "AdaptLoss",
    "Checkpoint",
    "Diagnosis",
    "EvolutionStrategies",
    "LearnedRate",
    "Learner",
    "LossInputs",
    "LossPerHead",
    "MetaLoss",
    "MetaTrainer",
    "Parameters",
    "StopScaleGradient",
    "TaskLoss",
    "TrainingFacts",
    "__version__",
    "check_use",
    "join_hosts",
    "list_meta_losses",
    "load_meta_loss",
    "meta_test",
    "sine_tasks",
]

_MODULES = {
    "AdaptLoss": "outer_loop",
    "Checkpoint": "outer_loop",
    "Diagnosis": "diagnosis",
    "EvolutionStrategies": "outer_loop",
    "Learner": "learner",
    "LossInputs": "arguments",
    "MetaTrainer": "meta_trainer",
    "Parameters": "learner",
    "StopScaleGradient": "inner_optimizer",
    "TaskLoss": "outer_loop",
    "join_hosts": "hosts",
    "list_meta_losses": "saving",
    "load_meta_loss": "saving",
    "meta_test": "meta_testing",
    "sine_tasks": "datasets",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
