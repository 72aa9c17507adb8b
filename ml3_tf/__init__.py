"""Learned loss functions for Keras: meta-train a loss with `MetaTrainer.fit`, then use it in any `model.compile`.

A learned loss runs on every Keras backend, meta-training on TensorFlow: what needs TensorFlow is imported when it is
first asked for.
"""

import importlib
from typing import TYPE_CHECKING

from ml3_tf import errors  # noqa: F401 - `except ml3_tf.errors.ArtefactError` needs no import of its own
from ml3_tf.meta_loss import LearnedRate, MetaLoss  # at once: a saved model that was compiled with one needs the class
from ml3_tf.version import __version__

if TYPE_CHECKING:
    from ml3_tf.inner_loop import meta_test
    from ml3_tf.meta_trainer import MetaTrainer
    from ml3_tf.saving import list_meta_losses, load_meta_loss
    from ml3_tf.tasks import sine_tasks

__all__ = [
    "LearnedRate",
    "MetaLoss",
    "MetaTrainer",
    "__version__",
    "list_meta_losses",
    "load_meta_loss",
    "meta_test",
    "sine_tasks",
]

_MODULES = {
    "MetaTrainer": "meta_trainer",
    "list_meta_losses": "saving",
    "load_meta_loss": "saving",
    "meta_test": "inner_loop",
    "sine_tasks": "tasks",
}


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
