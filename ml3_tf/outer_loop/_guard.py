"""Guards of the outer loop: what is not finite is not applied, and what explodes is told."""

import math
import warnings

import keras
import tensorflow as tf

# A run whose largest meta-gradient is so many times its usual one hangs on rounding.
EXPLODES = 1e3
# In one outer step, learners move by more than this of their size, and by less than this many times their size.
STANDS, RUNS_AWAY = 1e-9, 1e3
PATIENCE = 4  # so many steps in a row that are not finite are an error
REMEDY = (
    "Usually learners diverged: lower the inner learning rate or `unroll`, or clip the inner gradient (`clipnorm`); "
    "otherwise look for NaN in the tasks."
)


class FiniteGuard:
    """Lets an optimizer step only by finite gradients, and raises where they fail for good.

    A single step that is not finite is left out: its learners diverged, and the next step has others. It is an error if
    `PATIENCE` steps in a row are left out, or all steps of a run.

    Args:
        variables: The variables that the optimizer moves.
    """

    def __init__(self, variables: list[keras.Variable]) -> None:
        self.variables: list[keras.Variable] = variables
        self._non_finite = tf.Variable(tf.zeros(len(variables), tf.bool), trainable=False)  # of the steps in a row
        self._counts = [tf.Variable(0, trainable=False) for _ in range(3)]
        self._in_a_row, self._left_out, self._taken = self._counts

    @property
    def state(self) -> list[tf.Variable]:
        """What it has counted."""
        return [self._non_finite, *self._counts]

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: list[tf.Tensor]) -> None:
        """Moves the variables, unless a gradient is not finite."""
        squares = tf.stack([tf.cast(tf.reduce_sum(tf.square(gradient)), tf.float32) for gradient in gradients])
        # Also gradients so large that the square of their global norm, which clipping divides by, overflows.
        non_finite = tf.logical_not(tf.math.is_finite(len(gradients) * squares))
        is_bad = tf.reduce_any(non_finite)
        self._non_finite.assign((self._non_finite & is_bad) | non_finite)
        self._in_a_row.assign(tf.where(is_bad, self._in_a_row + 1, 0))
        self._left_out.assign_add(tf.cast(is_bad, tf.int32))
        self._taken.assign_add(tf.cast(~is_bad, tf.int32))

        def move() -> bool:
            optimizer.apply(gradients, self.variables)
            return True

        tf.cond(is_bad, lambda: False, move)

    def raise_if_in_a_row(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Raises `FloatingPointError` if `PATIENCE` steps in a row were left out."""
        if self._in_a_row.numpy() >= PATIENCE:
            self._raise(optimizer)

    def finish(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Ends a run: raises `FloatingPointError` if no step was taken, and warns if some were left out."""
        _, left_out, taken = (int(count) for count in self._counts)
        if left_out and not taken:
            self._raise(optimizer)
        self.reset()
        if left_out:
            warnings.warn(
                f"{left_out} of {left_out + taken} steps of the meta-loss were left out: their meta-gradient was not "
                f"finite. {REMEDY}",
                stacklevel=3,
            )

    def reset(self) -> None:
        """Forgets all steps."""
        for variable in self.state:
            variable.assign(tf.zeros_like(variable))

    def _raise(self, optimizer: keras.optimizers.Optimizer) -> None:
        names = [v.path for v, bad in zip(self.variables, self._non_finite.numpy(), strict=True) if bad]
        number = int(self._in_a_row)
        self.reset()
        raise FloatingPointError(
            f"The meta-gradient of {', '.join(names)} is not finite in {number} step(s) in a row, after "
            f"{int(optimizer.iterations)} outer steps. None of them was taken: the meta-loss still holds its last "
            f"finite weights. {REMEDY}"
        )


class NormWatch:
    """Watches the norm of the meta-gradient before it is clipped, and warns if it explodes or is zero throughout.

    Where it explodes, a difference of rounding decides what is learned, and results differ from machine to machine.
    """

    def __init__(self) -> None:
        self.state: list[tf.Variable] = [tf.Variable(0.0, trainable=False) for _ in range(4)]
        self._largest, self._sum_of_logs, self._count, self._zeros = self.state

    def record(self, norm: tf.Tensor) -> None:
        """Records the norm of a step, unless it is not finite."""
        norm = tf.cast(norm, tf.float32)
        counts = tf.math.is_finite(norm) & (norm > 0)
        self._largest.assign(tf.where(counts, tf.maximum(self._largest, norm), self._largest))
        self._sum_of_logs.assign_add(tf.where(counts, tf.math.log(tf.where(counts, norm, 1.0)), 0.0))
        self._count.assign_add(tf.cast(counts, tf.float32))
        self._zeros.assign_add(tf.cast(norm == 0, tf.float32))

    def warn_and_forget(self) -> None:
        """Warns of all norms since the last call: if the largest was `EXPLODES` times the usual, or none above zero.

        The usual norm is the geometric mean.
        """
        largest, sum_of_logs, count, zeros = map(float, self.state)
        usual = math.exp(sum_of_logs / max(count, 1.0))
        for variable in self.state:
            variable.assign(0.0)
        if zeros and not count:
            warnings.warn(
                f"The meta-gradient was zero in all {zeros:.0f} steps: the meta-loss has learned nothing. Either its "
                "network does not react (dead units, or outputs multiplied by zero), or the learners do not move (an "
                "inner learning rate that is far too small, inputs of zero), or the task loss does not see it.",
                stacklevel=3,
            )
        if largest > EXPLODES * usual:
            warnings.warn(
                f"The meta-gradient explodes: its norm reached {largest:.1e}, usually it was {usual:.1e}. What such "
                "steps teach hangs on rounding, and the result on the machine. Let it flow through fewer steps "
                "(`unroll`, or `lives` for learners that live on), estimate it by `EvolutionStrategies`, lower the "
                "inner learning rate, or at least clip it (the optimizer's `global_clipnorm`).",
                stacklevel=3,
            )


class MotionWatch:
    """Watches how far learners move in the first outer step of a run, and warns if that is next to nothing, or wild.

    Neither raises by itself: an outer optimizer such as Adam steps as far by a tiny meta-gradient as by a large one.
    """

    def __init__(self) -> None:
        self.state: list[tf.Variable] = [tf.Variable(0.0, trainable=False) for _ in range(2)]
        self._farthest, self._nearest = self.state

    def record(self, before: list[tf.Tensor], after: list[tf.Tensor]) -> None:
        """Records the motion of learners in the first step: lists of parameters `[N, ...]`."""

        def norm(parameters: list[tf.Tensor]) -> tf.Tensor:
            squares = [tf.reduce_sum(tf.reshape(tf.square(part), [part.shape[0], -1]), 1) for part in parameters]
            return tf.sqrt(tf.cast(tf.add_n(squares), tf.float32))

        def measure() -> bool:
            distance = norm([new - old for new, old in zip(after, before, strict=True)]) / (1 + norm(before))
            self._farthest.assign(tf.reduce_max(distance))
            self._nearest.assign(tf.reduce_min(distance))
            return True

        tf.cond(self._farthest == 0.0, measure, lambda: False)

    def warn_and_forget(self, *, was_run: bool) -> None:
        """Warns if all learners moved less than `STANDS`, or more than `RUNS_AWAY`, relative to their size."""
        farthest, nearest = map(float, self.state)
        for variable in self.state:
            variable.assign(0.0)
        if was_run and farthest < STANDS:
            warnings.warn(
                f"The learners hardly moved: by {farthest:.1e} of their size in the first outer step. So what the "
                "meta-loss has learned is next to nothing. Usually the inner learning rate is far too small, or the "
                "meta-loss hardly depends on y_pred.",
                stacklevel=3,
            )
        if nearest > RUNS_AWAY:
            warnings.warn(
                f"The learners run away: they moved by {nearest:.1e} times their size, and more, in the first outer "
                "step. What is learned from such learners is of no use. Lower the inner learning rate, or clip the "
                "inner gradient (`clipnorm`).",
                stacklevel=3,
            )
