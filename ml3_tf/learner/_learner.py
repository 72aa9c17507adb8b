"""The learner of many tasks: fresh parameters for each, and one forward pass for all.

Shape letters: N tasks, B examples of a task.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ml3_tf.arguments import ModelLike
from ml3_tf.keras_internals import get_mask, second_derivatives, set_mask
from ml3_tf.learner._drawing import is_seed, make_drawer, repeat
from ml3_tf.learner._recurrent import rnn_by_scan
from ml3_tf.learner._vectorize import find_hindrances, map_over_tasks


class Parameters(NamedTuple):
    """Values of a learner's variables for `N` tasks.

    Attributes:
        trainable: List of `[N, ...]`, theta.
        non_trainable: List of `[N, ...]`: moving statistics of BatchNorm, seeds of Dropout.
    """

    trainable: list[tf.Tensor]
    non_trainable: list[tf.Tensor]


class Learner:
    """A Keras model with the parameters of `N` tasks, stacked as `[N, ...]`.

    **Non-trainable variables** (BatchNorm's moving statistics, the seeds of Dropout) belong to a task as its parameters
    do: they start fresh with them, a training pass (`training=True`) moves them, and a pass with `training=False` reads
    them, exactly as `fit` and `evaluate` do. Each task has dropout masks of its own. Recurrent layers start every call
    from their initial state. What a training pass does not move (frozen layers, adapted normalization) keeps the values
    of the model.

    A learner is vectorized over tasks unless it contains a convolution, a loop, an embedding, a slice, a concatenation
    or a reduction. Such a learner is applied task by task in one graph, which gives the same values.

    Args:
        build: A function without arguments that returns a built Keras model, or such a model. It is
            called once for the model that all tasks share; a model is shared itself, and left alone.
        seed: Optional integer that determines all parameters drawn.

    Raises:
        ValueError: `build` does not return a Keras model with trainable weights; when it is first applied: a forward
            pass overwrites some of them.
        RuntimeError: Keras runs on another backend than TensorFlow.

    Example:

    >>> import keras
    >>> learner = Learner(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), seed=0)
    >>> parameters = learner.draw(num_tasks=5)
    >>> [tuple(weights.shape) for weights in parameters.trainable]
    [(5, 3, 2), (5, 2)]
    """

    def __init__(self, build: ModelLike, *, seed: int | None = None) -> None:
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(
                "A learned loss runs on every backend of Keras; meta-training and meta-tests need TensorFlow. Set the "
                "environment variable KERAS_BACKEND=tensorflow before Keras is imported. Received: the backend "
                f"'{keras.backend.backend()}'"
            )
        if isinstance(build, keras.Model):
            self.model: keras.Model = build
            template = _clone_architecture(build) if build.compiled else build
            self._build: Callable[[], Any] = lambda: keras.models.clone_model(template)
        else:
            self.model, self._build = build(), build
        if not isinstance(self.model, keras.Model):
            raise ValueError(f"`learner` must return a Keras model. Received: {type(self.model).__name__}")
        if not self.model.trainable_variables:
            raise ValueError(
                f"The learner '{self.model.name}' has no trainable weights. Give it a `keras.Input`, so it is built."
            )
        self.seeds: keras.random.SeedGenerator = keras.random.SeedGenerator(seed)
        self._draw_trainable, self._draw_non_trainable = self._record_initializers(self.seeds)
        self.compiled: dict[Hashable, Any] = {}
        """Compiled functions of this learner by what else they depend on, so that nothing is compiled twice."""

    def draw(self, num_tasks: int, *, seed: int | None = None) -> Parameters:
        """Draws fresh parameters for each task, by the learner's own initializers.

        Args:
            num_tasks: N.
            seed: Optional integer: draws what the first draw of a learner with this seed is. `None`: the next draw.

        Returns:
            `Parameters` of N tasks.
        """
        if seed is not None:
            state = tf.identity(self.seeds.state)
            self.seeds.state.assign(keras.random.SeedGenerator(seed).state)
        non_trainable = zip(self.model.non_trainable_variables, self._draw_non_trainable, self._is_moved, strict=True)
        parameters = Parameters(
            [draw(num_tasks) for draw in self._draw_trainable],
            [draw(num_tasks) if is_moved else repeat(v, num_tasks) for v, draw, is_moved in non_trainable],
        )
        if seed is not None:
            self.seeds.state.assign(state)
        return parameters

    def copies(self, model: keras.Model, num_tasks: int, *, fresh_seeds: bool = False) -> Parameters:
        """Returns the current values of `model` once for each task.

        Args:
            model: A model of the learner's architecture.
            num_tasks: N.
            fresh_seeds: Whether to draw seeds of Dropout for each task, so that their masks differ.

        Raises:
            ValueError: A model of another architecture.
        """
        shapes = lambda of: [tuple(v.shape) for v in [*of.trainable_variables, *of.non_trainable_variables]]
        if shapes(model) != shapes(self.model):
            raise ValueError(
                "Learners can start from a model of their architecture alone, with the same layers frozen. Expected "
                f"weights of the shapes {shapes(self.model)}. Received: '{model.name}' with {shapes(model)}"
            )
        drawn = zip(model.non_trainable_variables, self._draw_non_trainable, strict=True)
        is_drawn = lambda variable: fresh_seeds and is_seed(variable)
        non_trainable = [draw(num_tasks) if is_drawn(v) else repeat(v, num_tasks) for v, draw in drawn]
        return Parameters([repeat(v, num_tasks) for v in model.trainable_variables], non_trainable)

    def build_model(self, parameters: Parameters) -> keras.Model:
        """Returns a new model of the learner's architecture, with the `Parameters` of the first task."""
        model = self._build()
        for variables, values in zip((model.trainable_variables, model.non_trainable_variables), parameters):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value[0])
        return model

    def apply(self, parameters: Parameters, x: Any, *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Applies the learner of each task to the examples of that task.

        Args:
            parameters: `Parameters` of N tasks.
            x: Tensor `[N, B, ...]`, or a structure of them.
            training: Whether layers behave, and non-trainable variables move, as in `fit`.

        Returns:
            `y_pred` `[N, B, ...]`, or a structure of them, with the masks that the learner has left on them; the new
            `non_trainable`; and the learner's own losses (regularizers) `[N]`.
        """

        def apply_to_one_task(inputs: Any) -> Any:
            trainable, non_trainable, x = inputs
            with second_derivatives(rnn_by_scan):
                outputs: Any = self.model.stateless_call(
                    list(trainable), list(non_trainable), x, return_losses=True, **_mode(self.model, training)
                )
            y_pred, non_trainable, losses = outputs
            heads = tf.nest.flatten(y_pred)
            masks = {str(i): mask for i, head in enumerate(heads) if (mask := get_mask(head)) is not None}
            losses = tf.add_n(losses) if losses else tf.zeros((), heads[0].dtype)
            return y_pred, tuple(non_trainable), losses, masks

        inputs = (tuple(parameters.trainable), tuple(parameters.non_trainable), x)
        y_pred, non_trainable, losses, masks = map_over_tasks(apply_to_one_task, inputs, vectorized=self.vectorized)
        for i, mask in masks.items():
            set_mask(tf.nest.flatten(y_pred)[int(i)], mask)
        return y_pred, list(non_trainable), losses

    def predict(self, parameters: Parameters, x: Any) -> tf.Tensor:
        """Returns predictions `[N, B, ...]` of learners that are not training; see `apply`."""
        return self.apply(parameters, x, training=False)[0]

    @functools.cached_property
    def vectorized(self) -> bool:
        """Whether the learner is vectorized over tasks: no operation of it stands in the way."""
        return not self._hindrances

    @functools.cached_property
    def has_loop(self) -> bool:
        """Whether the learner has a loop of TensorFlow, as recurrent layers with dropout have."""
        return any("While" in name for name in self._hindrances)

    @property
    def _hindrances(self) -> set[str]:
        return self._traced[0]

    @property
    def _is_moved(self) -> list[bool]:
        """Whether a training pass moves each non-trainable variable."""
        return self._traced[1]

    @functools.cached_property
    def _traced(self) -> tuple[set[str], list[bool]]:
        """What a trace of a training pass shows."""
        variables, is_moved = self.model.non_trainable_variables, []

        def train(x: Any) -> Any:
            with second_derivatives(rnn_by_scan), keras.StatelessScope() as scope:
                y_pred = self.model(x, **_mode(self.model, training=True))
            is_moved[:] = [scope.get_current_value(variable) is not None for variable in variables]
            _refuse_moved([v.path for v in self.model.trainable_variables if scope.get_current_value(v) is not None])
            return y_pred

        specs = _input_specs(self.model)
        if specs is None:
            return {"inputs"}, [is_seed(variable) for variable in variables]
        return find_hindrances(train, specs), is_moved

    def _record_initializers(self, seeds: keras.random.SeedGenerator) -> list[list[Callable[[int], tf.Tensor]]]:
        """Builds the learner once more without values, which leaves in each variable the initializer it was given."""
        with keras.StatelessScope():
            model = self._build()

            def record(variables: Sequence[Any]) -> list[Callable[[int], tf.Tensor]]:
                return [make_drawer(variable, seeds) for variable in variables]

            return [record(model.trainable_variables), record(model.non_trainable_variables)]


def _mode(model: keras.Model, training: bool) -> dict[str, bool]:
    """Returns the argument `training` of a call, for models that take it, as all of Keras's own do."""
    parameters = inspect.signature(model.call).parameters
    return {"training": training} if "training" in parameters else {}


def _refuse_moved(names: list[str]) -> None:
    if names:
        raise ValueError(
            f"The learner cannot be meta-trained: its forward pass overwrites {', '.join(names)}, which the optimizer "
            "moves too, and no gradient sees that. `SpectralNormalization` does so. Leave the layer out, or wrap a "
            "layer that is not trainable."
        )


def _input_specs(model: keras.Model) -> Any:
    """Returns the specs of a model's inputs for a batch of two examples; `None` if the model does not know them."""
    spec = lambda shape, dtype: tf.TensorSpec([2 if size is None else size for size in shape], dtype)
    if hasattr(model, "inputs"):
        return tf.nest.map_structure(lambda x: spec(x.shape, x.dtype), _unpacked(model.inputs))
    shape = (model.get_build_config() or {}).get("input_shape")  # of a subclass
    return None if shape is None else spec(shape, model.compute_dtype)


def _unpacked(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _clone_architecture(model: keras.Model) -> keras.Model:
    """Clones a model without its optimizer and loss, which `clone_model` would compile the clone with."""
    compiled, model.compiled = model.compiled, False
    try:
        return keras.models.clone_model(model)
    finally:
        model.compiled = compiled
