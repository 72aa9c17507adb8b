"""TensorFlow Probability, which only policies and learned dynamics need: it belongs to the extra `[rl]`."""

from types import ModuleType

import tensorflow as tf

from ml3_tf.extras import needed_for


def import_distributions() -> ModuleType:
    """Imports `tensorflow_probability.distributions` when it is first needed.

    Raises:
        ImportError: TensorFlow Probability, or the `tf_keras` that it imports, is not installed.
    """
    with needed_for("A distribution", "TensorFlow Probability and tf_keras", extra="rl"):
        with tf.init_scope():  # a graph under construction must not own the constants of the module
            from tensorflow_probability import distributions
    return distributions
