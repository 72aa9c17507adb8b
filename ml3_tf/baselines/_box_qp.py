"""Quadratic programs whose variables have limits, many at once.

Shape letters: N programs, A variables, M right-hand sides.
"""

from __future__ import annotations

import tensorflow as tf

from ml3_tf.arguments import TensorLike

MAX_ITERATIONS = 50
STEP_SIZES = [0.6**n for n in range(20)]
ACCEPTED_SHARE = 0.1  # Armijo's rule: the share of the decrease promised by the gradient that a step must bring


def box_qp(
    hessian: TensorLike, gradient: TensorLike, *, lower: TensorLike, upper: TensorLike
) -> tuple[tf.Tensor, tf.Tensor]:
    """Minimizes `x' H x / 2 + q' x` subject to `lower <= x <= upper` by projected Newton steps.

    A variable at its limit whose gradient pushes it further is held there. The others take a Newton step, projected on
    the limits, with an Armijo line search. The set of held variables is found in a few iterations.

    Args:
        hessian: `[N, A, A]`, H, positive definite.
        gradient: `[N, A]`, q.
        lower: `[N, A]`, or a shape that broadcasts to it; may be `-inf`.
        upper: `[N, A]`, or a shape that broadcasts to it; may be `inf`.

    Returns:
        The solution `[N, A]`, and `[N, A]`: 1 where a variable is free, 0 where its limit holds it.

    Example:

    >>> hessian, gradient = tf.eye(2)[None], tf.constant([[-3.0, 1.0]])
    >>> x, free = box_qp(hessian, gradient, lower=-2.0, upper=2.0)
    >>> x.numpy().tolist(), free.numpy().tolist()
    ([[2.0, -1.0]], [[0.0, 1.0]])

    References:
        Bertsekas, Projected Newton methods for optimization problems with simple constraints, 1982.
        Tassa, Mansard and Todorov, Control-limited differential dynamic programming, ICRA 2014, section III.
    """
    hessian, gradient = tf.convert_to_tensor(hessian), tf.convert_to_tensor(gradient)
    spread = lambda limit: tf.broadcast_to(tf.convert_to_tensor(limit, gradient.dtype), tf.shape(gradient))
    lower, upper = spread(lower), spread(upper)
    start = tf.clip_by_value(tf.zeros_like(gradient), lower, upper)
    smallest = 1e-12 if gradient.dtype == tf.float64 else 1e-6
    tolerance = smallest * (1.0 + tf.reduce_max(tf.abs(gradient), -1, keepdims=True))

    def slope(x: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(hessian, x) + gradient

    def unsolved(x: tf.Tensor) -> tf.Tensor:
        remaining = _free(x, slope(x), lower, upper) * tf.abs(slope(x))
        return tf.reduce_any(remaining > tolerance)

    def newton(x: tf.Tensor) -> tf.Tensor:
        free = _free(x, slope(x), lower, upper)
        direction = -free * solve_free(hessian, slope(x)[..., None], free)[..., 0]
        return _line_search(x, direction, slope(x), hessian, lower, upper)

    (x,) = tf.while_loop(unsolved, lambda x: (newton(x),), (start,), maximum_iterations=MAX_ITERATIONS)
    return x, _free(x, slope(x), lower, upper)


def solve_free(hessian: tf.Tensor, right: tf.Tensor, free: tf.Tensor) -> tf.Tensor:
    """Solves `H x = b` among the free variables; the others are 0.

    Args:
        hessian: `[N, A, A]`, H.
        right: `[N, A, M]`, b.
        free: `[N, A]`, 1 for a free variable, else 0.

    Returns:
        `[N, A, M]`.
    """
    both_free = free[..., None] * free[..., None, :]
    hessian = hessian * both_free + tf.linalg.diag(1.0 - free)
    return tf.linalg.solve(hessian, right * free[..., None])


def _free(x: tf.Tensor, slope: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tf.Tensor:
    held = ((x <= lower) & (slope > 0.0)) | ((x >= upper) & (slope < 0.0))
    return tf.cast(~held, x.dtype)


def _line_search(
    x: tf.Tensor, direction: tf.Tensor, slope: tf.Tensor, hessian: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor
) -> tf.Tensor:
    """Returns `x` after the first projected step that decreases the quadratic enough, or `x` if none does."""
    steps = tf.constant(STEP_SIZES, x.dtype)[:, None, None]
    candidates = tf.clip_by_value(x + steps * direction, lower, upper)  # [steps, N, A]
    moved = candidates - x
    promised = tf.reduce_sum(slope * moved, -1)
    change = promised + 0.5 * tf.reduce_sum(moved * tf.linalg.matvec(hessian, moved), -1)
    enough = change <= ACCEPTED_SHARE * promised
    first = tf.argmax(tf.cast(enough, tf.int32), 0)
    chosen = tf.gather(tf.transpose(candidates, [1, 0, 2]), first, batch_dims=1)
    return tf.where(tf.reduce_any(enough, 0)[:, None], chosen, x)
