"""The learner of many tasks: fresh parameters for each, and one forward pass for all."""

from typing import NamedTuple

import keras
import tensorflow as tf

from ml3_tf.task_map import is_vectorisable, map_over_tasks


class Parameters(NamedTuple):
    """Values of a learner's variables for `N` tasks.

    Attributes:
        trainable: List of `[N, ...]`, theta.
        state: List of `[N, ...]`, non-trainable variables: moving statistics, seeds of dropout.
    """

    trainable: list
    state: list


class Learner:
    """A Keras model with the parameters of `N` tasks, stacked as `[N, ...]`.

    **State.** Variables that are not trained (BatchNorm's moving statistics, the seeds of Dropout) belong to a task as
    its parameters do: they start fresh with them, a training pass (`training=True`) moves them, and a pass with
    `training=False` reads them, exactly as `fit` and `evaluate` do. Each task has dropout masks of its own. Recurrent
    layers start every call from their initial state.

    Learners without convolutions, loops, embeddings, and slices, concatenations or sums of values are vectorised over
    tasks; the others are applied task by task in one graph, which gives the same values.

    Args:
        build: A function without arguments that returns a built Keras model with one output, or such a model, which
            is then cloned and left alone.
        seed: Optional integer that determines all parameters drawn.

    Raises:
        ValueError: `build` gives no Keras model, or one without weights.

    Example:

    >>> import keras
    >>> learner = Learner(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), seed=0)
    >>> parameters = learner.draw(num_tasks=5)
    >>> [tuple(weights.shape) for weights in parameters.trainable]
    [(5, 3, 2), (5, 2)]
    """

    def __init__(self, build, seed=None):
        self._build = (lambda: keras.models.clone_model(build)) if isinstance(build, keras.Model) else build
        self.model = self._build()
        if not isinstance(self.model, keras.Model):
            raise ValueError(f"`learner` must return a Keras model. Received: {type(self.model).__name__}")
        if not self.model.trainable_variables:
            raise ValueError(
                f"The learner '{self.model.name}' has no trainable weights. Give it a `keras.Input`, so it is built."
            )
        self._draw_trainable, self._draw_state = self._record_initializers(keras.random.SeedGenerator(seed))
        self._vectorised = None

    def draw(self, num_tasks):
        """Draws fresh parameters for each task, by the learner's own initializers. Returns `Parameters`."""
        return Parameters(
            [draw(num_tasks) for draw in self._draw_trainable], [draw(num_tasks) for draw in self._draw_state]
        )

    def copies(self, model, num_tasks):
        """Returns the current values of `model`, a model of the learner's architecture, once for each task."""

        def stack(variables):
            return [tf.repeat(tf.convert_to_tensor(value)[tf.newaxis], num_tasks, axis=0) for value in variables]

        return Parameters(stack(model.trainable_variables), stack(model.non_trainable_variables))

    def apply(self, parameters, x, training):
        """Applies the learner of each task to the examples of that task.

        Args:
            parameters: `Parameters` of N tasks.
            x: Tensor `[N, B, ...]`, or a structure of them.
            training: Whether layers behave, and state moves, as in `fit`.

        Returns:
            `y_pred` `[N, B, ...]`, the new `state`, and the learner's own losses (regularisers) `[N]`.
        """

        def apply_to_one_task(inputs):
            trainable, state, x = inputs
            y_pred, state, losses = self.model.stateless_call(
                list(trainable), list(state), x, training=training, return_losses=True
            )
            return y_pred, tuple(state), tf.add_n(losses) if losses else tf.zeros((), y_pred.dtype)

        inputs = (tuple(parameters.trainable), tuple(parameters.state), x)
        y_pred, state, losses = map_over_tasks(apply_to_one_task, inputs, vectorised=self.is_vectorised(x))
        return y_pred, list(state), losses

    def is_vectorised(self, x):
        """Whether the learner is vectorised over tasks: none of its operations stands in the way."""
        if self._vectorised is None:
            self._vectorised = is_vectorisable(lambda x: self.model(x, training=True), x)
        return self._vectorised

    def _record_initializers(self, seeds):
        """Builds the learner once more without values, which leaves in each variable how it wants to be initialised."""
        with keras.StatelessScope():
            model = self._build()

            def record(variables):
                return [
                    _drawer(variable._initializer, tuple(variable.shape), variable.dtype, seeds)
                    for variable in variables
                ]

            return record(model.trainable_variables), record(model.non_trainable_variables)


def _drawer(initializer, shape, dtype, seeds):
    """A function `num_tasks -> [N, *shape]` that draws independent values of one variable."""
    initializers = keras.initializers
    if "int" in dtype and shape == (2,):  # the state of a `keras.random.SeedGenerator`: a seed and a counter
        return lambda n: tf.pad(keras.random.randint((n, 1), 0, 2**31 - 1, dtype=dtype, seed=seeds), [[0, 0], [0, 1]])
    config = initializer.get_config() if isinstance(initializer, initializers.Initializer) else {}
    if "seed" not in config:  # not random: the same value for each task
        return lambda n: tf.repeat(tf.convert_to_tensor(initializer(shape, dtype=dtype))[tf.newaxis], n, axis=0)
    if isinstance(initializer, initializers.VarianceScaling) and len(shape) > 1:
        # One draw for all tasks. A leading axis n multiplies the fans, and thereby divides the variance, by n.
        def draw(n):
            return initializers.VarianceScaling(
                n * initializer.scale, initializer.mode, initializer.distribution, seeds
            )((n, *shape), dtype=dtype)

        return draw
    seeded = type(initializer).from_config({**config, "seed": seeds})
    return lambda n: tf.stack([seeded(shape, dtype=dtype) for _ in range(n)])
