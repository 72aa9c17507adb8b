"""The learner of many tasks: fresh parameters for each, and one forward pass for all.

Shape letters: N tasks, B examples of a task.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ml3_tf.arguments import ModelLike
from ml3_tf.keras_internals import get_initializer

# Operations that cannot be batched when each task has weights of its own (convolutions), or whose batched form XLA
# cannot compile (loops, and look-ups in a table).
_NOT_VECTORIZED = (
    "Conv",
    "DepthwiseConv",
    "While",
    "StatelessWhile",
    "Gather",
    "ResourceGather",
    "BatchMatMul",
    "Einsum",
)
# Those whose batched second derivative asks for shapes at run time: XLA then compiles at every step, or refuses.
_NOT_VECTORIZED_FLOATS = (
    "StridedSlice",
    "Slice",
    "Split",
    "SplitV",
    "ConcatV2",
    "Transpose",
    "Sum",
    "Mean",
    "Prod",
    "Max",
    "Min",
)


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
    from their initial state.

    A learner is vectorized over tasks unless it contains a convolution, a loop, an embedding, a slice, a concatenation
    or a reduction. Such a learner is applied task by task in one graph, which gives the same values.

    Args:
        build: A function without arguments that returns a built Keras model with one output, or such a model, which
            is then cloned and left alone.
        seed: Optional integer that determines all parameters drawn.

    Raises:
        ValueError: `build` does not return a Keras model with trainable weights.

    Example:

    >>> import keras
    >>> learner = Learner(lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), seed=0)
    >>> parameters = learner.draw(num_tasks=5)
    >>> [tuple(weights.shape) for weights in parameters.trainable]
    [(5, 3, 2), (5, 2)]
    """

    def __init__(self, build: ModelLike, *, seed: int | None = None) -> None:
        if isinstance(build, keras.Model):
            template = _clone_architecture(build) if build.compiled else build
            self._build: Callable[[], Any] = lambda: keras.models.clone_model(template)
        else:
            self._build = build
        self.model: keras.Model = self._build()
        if not isinstance(self.model, keras.Model):
            raise ValueError(f"`learner` must return a Keras model. Received: {type(self.model).__name__}")
        if not self.model.trainable_variables:
            raise ValueError(
                f"The learner '{self.model.name}' has no trainable weights. Give it a `keras.Input`, so it is built."
            )
        self._seeds = keras.random.SeedGenerator(seed)
        self._draw_trainable, self._draw_non_trainable = self._record_initializers(self._seeds)
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
            state = tf.identity(self._seeds.state)
            self._seeds.state.assign(keras.random.SeedGenerator(seed).state)
        parameters = Parameters(
            [draw(num_tasks) for draw in self._draw_trainable], [draw(num_tasks) for draw in self._draw_non_trainable]
        )
        if seed is not None:
            self._seeds.state.assign(state)
        return parameters

    def copies(self, model: keras.Model, num_tasks: int) -> Parameters:
        """Returns the current values of `model`, a model of the learner's architecture, once for each task."""

        def stack(variables: Sequence[Any]) -> list[tf.Tensor]:
            return [tf.repeat(tf.convert_to_tensor(value)[tf.newaxis], num_tasks, axis=0) for value in variables]

        return Parameters(stack(model.trainable_variables), stack(model.non_trainable_variables))

    def apply(self, parameters: Parameters, x: Any, *, training: bool) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Applies the learner of each task to the examples of that task.

        Args:
            parameters: `Parameters` of N tasks.
            x: Tensor `[N, B, ...]`, or a structure of them.
            training: Whether layers behave, and non-trainable variables move, as in `fit`.

        Returns:
            `y_pred` `[N, B, ...]`, the new `non_trainable`, and the learner's own losses (regularizers) `[N]`.
        """

        def apply_to_one_task(inputs: Any) -> Any:
            trainable, non_trainable, x = inputs
            outputs: Any = self.model.stateless_call(
                list(trainable), list(non_trainable), x, training=training, return_losses=True
            )
            y_pred, non_trainable, losses = outputs
            return y_pred, tuple(non_trainable), tf.add_n(losses) if losses else tf.zeros((), y_pred.dtype)

        inputs = (tuple(parameters.trainable), tuple(parameters.non_trainable), x)
        y_pred, non_trainable, losses = map_over_tasks(apply_to_one_task, inputs, vectorized=self.vectorized)
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
        """Whether the learner has a loop, as recurrent layers have."""
        return any("While" in name for name in self._hindrances)

    @functools.cached_property
    def _hindrances(self) -> set[str]:
        specs = _input_specs(self.model)
        return {"inputs"} if specs is None else find_hindrances(lambda x: self.model(x, training=True), specs)

    def _record_initializers(self, seeds: keras.random.SeedGenerator) -> list[list[Callable[[int], tf.Tensor]]]:
        """Builds the learner once more without values, which leaves in each variable the initializer it was given."""
        with keras.StatelessScope():
            model = self._build()

            def record(variables: Sequence[Any]) -> list[Callable[[int], tf.Tensor]]:
                return [
                    _drawer(get_initializer(variable), tuple(variable.shape), variable.dtype, seeds)
                    for variable in variables
                ]

            return [record(model.trainable_variables), record(model.non_trainable_variables)]


def map_over_tasks(function: Callable[[Any], Any], inputs: Any, *, vectorized: bool = True) -> Any:
    """Applies a pure function of one task to `N` tasks.

    Args:
        function: Function of a structure of tensors `[...]`, returning a structure of tensors `[...]`.
        inputs: The same structure of tensors `[N, ...]`; N is static.
        vectorized: Whether to run each operation for all tasks at once. Otherwise the tasks are laid out in the graph
            one after the other, which any operation, its derivatives and XLA can cope with.

    Returns:
        The results, `[N, ...]`, with static shapes.

    Example:

    >>> numbers = tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])
    >>> map_over_tasks(lambda pair: pair[0] * pair[1], numbers).numpy().tolist()
    [3.0, 8.0]
    """
    num_tasks = tf.nest.flatten(inputs)[0].shape[0]
    if vectorized and num_tasks > 1:  # for one task the vectorized form has no static shapes, which XLA needs
        results = tf.vectorized_map(function, inputs, warn=False)
        return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [num_tasks, *t.shape[1:]]), results)
    tasks = [function(tf.nest.map_structure(lambda t, n=n: t[n], inputs)) for n in range(num_tasks)]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *tasks)


def find_hindrances(function: Callable[..., Any], *specs: Any) -> set[str]:
    """Returns the operations that keep a function from being vectorized by `map_over_tasks`.

    Without them, XLA compiles the vectorized function and its second derivative once.

    Args:
        function: Function of structures of tensors.
        *specs: The same structures of `tf.TensorSpec`, of one task.

    Returns:
        Names of TensorFlow's operations.

    Example:

    >>> vector = tf.TensorSpec((2,))
    >>> find_hindrances(tf.square, vector), find_hindrances(tf.reduce_sum, vector)
    (set(), {'Sum'})
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes if _stands_in_the_way(node)}


def _stands_in_the_way(node: Any) -> bool:
    is_float = tf.dtypes.as_dtype(node.attr["T"].type or tf.bool.as_datatype_enum).is_floating
    return node.op.startswith(_NOT_VECTORIZED) or (
        node.op in _NOT_VECTORIZED_FLOATS and is_float and not node.attr["keep_dims"].b
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


def _drawer(initializer: Any, shape: tuple[int, ...], dtype: str, seeds: Any) -> Callable[[int], tf.Tensor]:
    """Returns a function `num_tasks -> [N, *shape]` that draws independent values of one variable."""
    initializers = keras.initializers
    if "int" in dtype and shape == (2,):  # the state of a `keras.random.SeedGenerator`: a seed and a counter
        return lambda n: tf.pad(keras.random.randint((n, 1), 0, 2**31 - 1, dtype=dtype, seed=seeds), [[0, 0], [0, 1]])
    config = initializer.get_config() if isinstance(initializer, initializers.Initializer) else {}
    if "seed" not in config:  # not random: the same value for each task
        return lambda n: tf.repeat(tf.convert_to_tensor(initializer(shape, dtype=dtype))[tf.newaxis], n, axis=0)
    if isinstance(initializer, initializers.VarianceScaling) and len(shape) > 1:
        # One draw for all tasks. A leading axis n multiplies the fans, and thereby divides the variance, by n.
        def draw(n: int) -> tf.Tensor:
            return initializers.VarianceScaling(
                n * initializer.scale, initializer.mode, initializer.distribution, seeds
            )((n, *shape), dtype=dtype)

        return draw
    seeded = type(initializer).from_config({**config, "seed": seeds})
    return lambda n: tf.stack([seeded(shape, dtype=dtype) for _ in range(n)])
