"""TensorFlow Probability, which only policies and learned dynamics need: it belongs to the extra `[rl]`."""

from types import ModuleType

import tensorflow as tf


def import_distributions() -> ModuleType:
    """Imports `tensorflow_probability.distributions` when it is first needed.

    Raises:
        ImportError: TensorFlow Probability, or the `tf_keras` that it imports, is not installed.
    """
    try:
        with tf.init_scope():  # a graph under construction must not own the constants of the module
            from tensorflow_probability import distributions
    except ImportError as error:
        raise ImportError(
            "Distributions need TensorFlow Probability and tf_keras, which could not be imported "
            f"({error}). Install them: pip install 'ml3_tf[rl]'"
        ) from error
    return distributions
