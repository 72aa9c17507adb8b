"""The inner loop: learners of many tasks take optimizer steps on a loss, and gradients flow through all of it.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from ml3_tf.arguments import InnerOptimizerLike, LossesLike
from ml3_tf.inner_loop._shares import compile_in_shares
from ml3_tf.inner_loop._tasks import expand_like, leave_out_masked, no_targets, per_task_loss
from ml3_tf.inner_optimizer import InnerOptimizer
from ml3_tf.learner import Learner, Parameters, map_over_tasks
from ml3_tf.meta_gradient import Sweep, sweep
from ml3_tf.meta_loss import LossPerHead, get_loss

# So many last steps are recorded by one tape, which saves taking them twice; beyond, the graph would grow.
MAX_TAPED_STEPS = 4


class LearnerState(NamedTuple):
    """Where the learners of `N` tasks are on their way.

    Attributes:
        parameters: `Parameters` of the learners.
        slots: List of `[N, ...]`, the state of the inner optimizer.
        perturbation: List of `[N, ...]`, what each learner's loss adds to the variables of the loss; empty: nothing.
    """

    parameters: Parameters
    slots: list[tf.Tensor]
    perturbation: Sequence[tf.Tensor] = ()

    @property
    def age(self) -> tf.Tensor:
        """The number of steps that each learner has taken, `[N]`: the first slot of every Keras optimizer."""
        return self.slots[0]


class InnerLoop:
    """Trains the learners of N tasks at once, as a pure function that can itself be differentiated.

    One step equals `model.compile(optimizer, loss)` and `model.train_on_batch` for each task, to rounding: the loss
    with its reduction and sample weights, the learner's regularizers and non-trainable variables, and the optimizer are
    those of Keras.

    Args:
        learner: A `Learner`.
        loss: A `MetaLoss`, any other `keras.losses.Loss`, or the name of one; for several outputs a `LossPerHead`.
        optimizer: The inner optimizer, see `InnerOptimizer`.
    """

    def __init__(self, learner: Learner, loss: LossesLike, optimizer: InnerOptimizerLike) -> None:
        self.learner: Learner = learner
        self.loss: Any = get_loss(loss)
        self.optimizer: InnerOptimizer = InnerOptimizer(optimizer, learner.model.trainable_variables)

    def start(self, num_tasks: int, parameters: Parameters | None = None) -> LearnerState:
        """Returns the `LearnerState` of fresh learners, or of learners with the given `Parameters`."""
        parameters = self.learner.draw(num_tasks) if parameters is None else parameters
        return LearnerState(parameters, self.optimizer.initial_slots(num_tasks))

    def step(self, learners: LearnerState, support: Callable[[Parameters], Any]) -> LearnerState:
        """Takes one gradient step, eq. 2 of ML3: `theta_new = h(theta, d/dtheta L_learned)`.

        Args:
            learners: `LearnerState`.
            support: Function `Parameters -> (x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`: the examples that
                the learners train on; `(x,)` for a label-free loss. It may depend on the parameters, as a rollout does;
                gradients flow through it.

        Returns:
            The new `LearnerState`.

        Raises:
            ValueError: The loss does not depend on the learner's parameters.
        """
        theta, non_trainable = learners.parameters
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            parameters = Parameters(theta, non_trainable)
            examples = tf.nest.map_structure(tf.convert_to_tensor, support(parameters))
            y: Any
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
            y_pred, non_trainable, regularizers = self.learner.apply(parameters, x, training=True)
            y = no_targets(self.loss, y_pred) if y is None else y
            scored = (y, y_pred) if sample_weight is None else (y, y_pred, sample_weight)
            losses = self._support_losses(learners.perturbation, *scored)
            # Parameters of different tasks do not mix: the gradient of the sum holds the gradient of each task.
            total = tf.reduce_sum(losses + tf.cast(regularizers, losses.dtype))
        # In a rollout y depends on theta, too.
        gradients, *gradients_of_scored = tape.gradient(total, [theta, *_floats([y_pred, y])])
        if all(gradient is None for gradient in gradients_of_scored):
            raise ValueError(
                f"The loss '{_name(self.loss)}' gives the learner no gradient. Expected a loss that depends on y_pred; "
                "check its network for `stop_gradient` or an input that is not used."
            )
        gradients = [tf.zeros_like(t) if g is None else tf.convert_to_tensor(g) for g, t in zip(gradients, theta)]
        theta, slots = self.optimizer.step(theta, learners.slots, gradients)
        return LearnerState(Parameters(theta, non_trainable), slots, learners.perturbation)

    def run(self, learners: LearnerState, support: Callable[[Parameters, Any], Any], num_steps: int) -> LearnerState:
        """Takes `num_steps` steps. Gradients through many are those of `differentiate`, see there for the arguments."""
        body = lambda i, learners: (i + 1, self.step(learners, lambda parameters: support(parameters, i)))
        return tf.while_loop(lambda i, _: i < num_steps, body, (0, learners), maximum_iterations=num_steps)[1]

    def run_and_score(
        self,
        learners: LearnerState,
        support: Callable[[Parameters, Any], Any],
        score: Callable[[LearnerState], tf.Tensor],
        *,
        num_steps: int,
        at_every_step: bool = False,
    ) -> tuple[tf.Tensor, LearnerState]:
        """Takes `num_steps` steps, and scores the learners.

        Args:
            learners: `LearnerState`.
            support: As in `step`, but a function of the parameters and of the number of the step.
            score: Function of `LearnerState` that returns `[N]`.
            num_steps: Number of steps.
            at_every_step: Whether to score the learners after every step, and add the scores up.

        Returns:
            The score of each task `[N]`, after the last step or the sum over all; the new `LearnerState`.
        """
        if not at_every_step:
            learners = self.run(learners, support, num_steps)
            return score(learners), learners

        def body(i: tf.Tensor, learners: LearnerState, total: tf.Tensor) -> Any:
            learners = self.step(learners, lambda parameters: support(parameters, i))
            return i + 1, learners, total + score(learners)

        start = 0, learners, _no_score(learners)
        _, learners, total = tf.while_loop(lambda i, *_: i < num_steps, body, start, maximum_iterations=num_steps)
        return total, learners

    def differentiate(
        self,
        learners: LearnerState,
        support: Callable[[Parameters, Any], Any],
        score: Callable[[LearnerState], tf.Tensor],
        *,
        num_steps: int,
        variables: Sequence[Any],
        at_every_step: bool = False,
        recompute: int | Literal["auto"] = "auto",
    ) -> Sweep:
        """Takes `num_steps` steps, and differentiates the mean score over tasks through all of them.

        Args:
            learners: `LearnerState`.
            support: As in `step`, but a function of the parameters and of the number of the step.
            score: Function of `LearnerState` that returns `[N]`.
            num_steps: Number of steps.
            variables: The variables to differentiate for.
            at_every_step: As in `run`.
            recompute: See `sweep`.

        Returns:
            A `Sweep`: the mean score as "loss", the new `LearnerState` as "carry".
        """

        def step(carry: tuple[LearnerState, tf.Tensor], i: Any) -> tuple[LearnerState, tf.Tensor]:
            learners, total = carry
            learners = self.step(learners, lambda parameters: support(parameters, i))
            return learners, total + score(learners) if at_every_step else total

        num_swept = 0 if num_steps <= MAX_TAPED_STEPS else num_steps - 1

        def end(carry: tuple[LearnerState, tf.Tensor]) -> tuple[tf.Tensor, Any]:
            for i in range(num_swept, num_steps):
                carry = step(carry, i)
            learners, total = carry
            return tf.reduce_mean(total if at_every_step else score(learners)), carry

        start = learners, _no_score(learners)
        swept = sweep(step, end, start, num_steps=num_swept, variables=variables, recompute=recompute)
        return swept._replace(carry=swept.carry[0])

    def _support_losses(self, perturbation: Sequence[tf.Tensor], *examples: Any) -> tf.Tensor:
        """Returns the loss of each task, `[N]`, of examples `(y, y_pred[, sample_weight])`, with its perturbation."""
        if not perturbation:
            return per_task_loss(self.loss, *examples)
        y, y_pred, *weights = examples
        if not isinstance(self.loss, LossPerHead):
            weight = leave_out_masked(y_pred, *weights, reduction=getattr(self.loss, "reduction", None))
            examples = (y, y_pred) if weight is None else (y, y_pred, weight)
        variables = self.loss.trainable_variables

        def loss_and_slopes(inputs: Any) -> Any:
            perturbation, *examples = inputs
            values = [(v, v.value + change) for v, change in zip(variables, perturbation, strict=True)]
            with keras.StatelessScope(state_mapping=values), tf.GradientTape() as tape:
                tape.watch(_floats(examples))
                of_one_task = tf.nest.map_structure(lambda values: values[tf.newaxis], examples)
                loss = per_task_loss(self.loss, *of_one_task)[0]
            return loss, tape.gradient(loss, _floats(examples), unconnected_gradients=tf.UnconnectedGradients.ZERO)

        # The slopes are mapped with the loss: XLA compiles the slope of a mapped function anew at every step.
        inputs = tf.nest.map_structure(tf.stop_gradient, (tuple(perturbation), *examples))
        losses, slopes = map_over_tasks(loss_and_slopes, inputs, vectorized=self.vectorized)

        @tf.custom_gradient
        def with_slopes(*_: tf.Tensor) -> Any:
            return tf.identity(losses), lambda upstream: [expand_like(upstream, slope) * slope for slope in slopes]

        return with_slopes(*_floats(examples))

    @property
    def vectorized(self) -> bool:
        """Whether the steps of all tasks are one operation."""
        return self.learner.vectorized and self.optimizer.vectorized

    def compile(self, function: Callable[..., Any], *, jit_compile: bool, **replicas: Any) -> Callable[..., Any]:
        """Compiles a function of structures `[N, ...]` in shares, see `compile_in_shares` for all arguments.

        XLA is left out for learners with a loop of TensorFlow: it would compile its second derivative anew at every
        step.
        """
        jit_compile = jit_compile and not self.learner.has_loop
        return compile_in_shares(function, vectorized=self.vectorized, jit_compile=jit_compile, **replicas)

    def predict(self, parameters: Parameters, x: Any) -> tf.Tensor:
        """Returns predictions `[N, B, ...]` of learners that are not training."""
        return self.learner.predict(parameters, x)

    def predict_weighted(self, parameters: Parameters, examples: Any) -> tuple[Any, tuple[Any, ...]]:
        """Returns predictions `[N, B, ...]` on examples as in `evaluate`, and their weights, if they have any.

        Of learners with several outputs, structures of both; every output has weights then.
        """
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
        y_pred = self.predict(parameters, x)
        if tf.is_tensor(y_pred):
            weights = leave_out_masked(y_pred, sample_weight)
            return y_pred, () if weights is None else (weights,)
        is_one = tf.is_tensor(sample_weight) or sample_weight is None
        given = tf.nest.map_structure(lambda _: sample_weight, y_pred) if is_one else sample_weight

        def weights_of(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
            weights = leave_out_masked(values, weights)
            return tf.ones(values.shape[:2], values.dtype) if weights is None else weights

        return y_pred, (tf.nest.map_structure(weights_of, y_pred, given),)

    def evaluate(self, loss: Any, parameters: Parameters, examples: Any) -> tf.Tensor:
        """Returns a Keras loss `[N]` of learners that are not training, on `(x, y)` or `(x, y, sample_weight)`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
        return per_task_loss(loss, y, self.predict(parameters, x), sample_weight)


def _floats(tensors: Any) -> list[tf.Tensor]:
    return [tensor for tensor in tf.nest.flatten(tensors) if tensor.dtype.is_floating]


def _no_score(learners: LearnerState) -> tf.Tensor:
    return tf.zeros(learners.age.shape, learners.parameters.trainable[0].dtype)


def _name(loss: Any) -> str:
    return getattr(loss, "name", None) or getattr(loss, "__name__", repr(loss))
