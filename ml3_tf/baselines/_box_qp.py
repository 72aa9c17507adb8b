"""Quadratic programs whose variables have limits, many at once."""

import tensorflow as tf

MAX_ITERATIONS = 50
STEP_SIZES = [0.6**n for n in range(20)]
ACCEPTED_SHARE = 0.1  # Armijo: of the decrease that the gradient promises


def box_qp(hessian, gradient, lower, upper):
    """Minimizes `x' H x / 2 + q' x` subject to `lower <= x <= upper` by projected Newton steps.

    A variable that rests on its limit, with a gradient that pushes it further, is held there; the others take a Newton
    step, projected on the limits, with an Armijo line search. The set that is held is found in a few iterations.

    Args:
        hessian: `[N, A, A]`, positive definite.
        gradient: `[N, A]`, q.
        lower: `[N, A]`, may be `-inf`.
        upper: `[N, A]`, may be `inf`.

    Returns:
        The solution `[N, A]`, and `[N, A]`: 1 where a variable is free, 0 where its limit holds it.

    Source: Bertsekas, Projected Newton methods for optimization problems with simple constraints, 1982; as in section
    III of Tassa, Mansard and Todorov, Control-limited differential dynamic programming, ICRA 2014.

    Example:

    >>> x, free = box_qp(tf.eye(2)[None], tf.constant([[-3.0, 1.0]]), tf.constant([[-2.0]]), tf.constant([[2.0]]))
    >>> x.numpy().tolist(), free.numpy().tolist()
    ([[2.0, -1.0]], [[0.0, 1.0]])
    """
    lower, upper = (tf.broadcast_to(limit, tf.shape(gradient)) for limit in (lower, upper))
    start = tf.clip_by_value(tf.zeros_like(gradient), lower, upper)
    smallest = 1e-12 if gradient.dtype == tf.float64 else 1e-6
    tolerance = smallest * (1.0 + tf.reduce_max(tf.abs(gradient), -1, keepdims=True))

    def slope(x):
        return tf.linalg.matvec(hessian, x) + gradient

    def unsolved(x):
        held_back = _free(x, slope(x), lower, upper) * tf.abs(slope(x))
        return tf.reduce_any(held_back > tolerance)

    def newton(x):
        free = _free(x, slope(x), lower, upper)
        direction = -free * solve_free(hessian, slope(x)[..., None], free)[..., 0]
        return _line_search(x, direction, slope(x), hessian, lower, upper)

    (x,) = tf.while_loop(unsolved, lambda x: (newton(x),), (start,), maximum_iterations=MAX_ITERATIONS)
    return x, _free(x, slope(x), lower, upper)


def solve_free(hessian, right, free):
    """Solves `H x = b` among the free variables; the others are 0.

    Args:
        hessian: `[N, A, A]`.
        right: `[N, A, M]`, b.
        free: `[N, A]`, 1 or 0.

    Returns:
        `[N, A, M]`.
    """
    both_free = free[..., None] * free[..., None, :]
    hessian = hessian * both_free + tf.linalg.diag(1.0 - free)
    return tf.linalg.solve(hessian, right * free[..., None])


def _free(x, slope, lower, upper):
    held = ((x <= lower) & (slope > 0.0)) | ((x >= upper) & (slope < 0.0))
    return tf.cast(~held, x.dtype)


def _line_search(x, direction, slope, hessian, lower, upper):
    """The first of the projected steps that decreases the quadratic enough; `x` itself where none does."""
    steps = tf.constant(STEP_SIZES, x.dtype)[:, None, None]
    candidates = tf.clip_by_value(x + steps * direction, lower, upper)  # [steps, N, A]
    moved = candidates - x
    promised = tf.reduce_sum(slope * moved, -1)
    change = promised + 0.5 * tf.reduce_sum(moved * tf.linalg.matvec(hessian, moved), -1)
    enough = change <= ACCEPTED_SHARE * promised
    first = tf.argmax(tf.cast(enough, tf.int32), 0)
    chosen = tf.gather(tf.transpose(candidates, [1, 0, 2]), first, batch_dims=1)
    return tf.where(tf.reduce_any(enough, 0)[:, None], chosen, x)
