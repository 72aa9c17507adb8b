"""Learned loss functions for Keras: meta-train a loss with `MetaTrainer.fit`, then use it in any `model.compile`."""

from ml3_tf.inner_loop import meta_test
from ml3_tf.meta_loss import LearnedRate, MetaLoss
from ml3_tf.meta_trainer import MetaTrainer
from ml3_tf.saving import load_meta_loss
from ml3_tf.tasks import sine_tasks
from ml3_tf.version import __version__

__all__ = ["LearnedRate", "MetaLoss", "MetaTrainer", "__version__", "load_meta_loss", "meta_test", "sine_tasks"]
