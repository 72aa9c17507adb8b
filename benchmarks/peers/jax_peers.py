"""JAX: `jit` of `grad` through a `lax.scan` of inner steps, with the networks and Adam by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from peers.clock import Run, repeat
from peers.workloads import ADAM_EPSILON, INNER_RATE, LENGTH, LOSS_UNITS, NUM_CLASSES, OUTER_RATE, WORKLOADS

Weights = list[dict[str, Any]]
"""The arrays of each layer by their names; or their shapes, from which they are drawn."""

INITIALIZERS = {
    "kernel": jax.nn.initializers.glorot_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "bias": jax.nn.initializers.zeros,
}


def draw(key: jax.Array, shapes: Weights) -> Weights:
    """Draws weights as Keras does."""
    keys = iter(jax.random.split(key, sum(map(len, shapes))))
    return [{name: INITIALIZERS[name](next(keys), shape) for name, shape in layer.items()} for layer in shapes]


def dense_shapes(*widths: int) -> Weights:
    return [{"kernel": (before, after), "bias": (after,)} for before, after in zip(widths, widths[1:])]


def dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Multiplies the last axes of `x` by a kernel. A bias has as many axes as the output features have."""
    num_axes = layer["kernel"].ndim - layer["bias"].ndim
    return jnp.tensordot(x, layer["kernel"], num_axes) + layer["bias"]


def apply_dense(theta: Weights, x: jax.Array) -> jax.Array:
    for layer in theta[:-1]:
        x = jnp.tanh(dense(layer, x))
    return dense(theta[-1], x)


def apply_lenet(theta: Weights, x: jax.Array) -> jax.Array:
    for layer, padding in zip(theta, ("SAME", "VALID")):
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.tanh(x + layer["bias"])
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return jax.nn.softmax(apply_dense(theta[2:], x.reshape(len(x), -1)))


def apply_gru(theta: Weights, x: jax.Array) -> jax.Array:
    of_inputs, recurrent, output = theta
    units = recurrent["bias"].size // 3

    def step(h, x):
        x, z = dense(of_inputs, x), h @ recurrent["orthogonal"] + recurrent["bias"]
        update, reset = jnp.split(jax.nn.sigmoid(x + z)[:, : 2 * units], 2, axis=1)
        candidate = jnp.tanh(x[:, 2 * units :] + reset * z[:, 2 * units :])
        return update * h + (1 - update) * candidate, None

    h, _ = jax.lax.scan(step, jnp.zeros((len(x), units)), x.swapaxes(0, 1))
    return dense(output, h)


def apply_lstm(theta: Weights, x: jax.Array) -> jax.Array:
    of_inputs, recurrent, output = theta

    def step(state, x):
        h, cell = state
        gates = dense(of_inputs, x) + h @ recurrent["orthogonal"]
        write, keep, candidate, show = jnp.split(gates, 4, axis=1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
        return (jax.nn.sigmoid(show) * jnp.tanh(cell), cell), None

    start = jnp.zeros((len(x), recurrent["orthogonal"].shape[0]))
    (h, _), _ = jax.lax.scan(step, (start, start), x.swapaxes(0, 1))
    return dense(output, h)


def apply_attention(theta: Weights, x: jax.Array) -> jax.Array:
    x = dense(theta[0], x)
    x = jax.nn.dot_product_attention(*(dense(layer, x) for layer in theta[1:4]))  # query, key, value
    return dense(theta[5], dense(theta[4], x).reshape(len(x), -1))


HEADS = {"kernel": (8, 2, 4), "bias": (2, 4)}
CONVOLUTIONS = [{"kernel": (5, 5, 1, 6), "bias": (6,)}, {"kernel": (5, 5, 6, 16), "bias": (16,)}]
LEARNERS = {
    "dense": (dense_shapes(1, 40, 40, 1), apply_dense),
    "lenet": (CONVOLUTIONS + dense_shapes(400, 120, 84, NUM_CLASSES), apply_lenet),
    "gru": (dense_shapes(1, 24) + [{"orthogonal": (8, 24), "bias": (24,)}] + dense_shapes(8, 1), apply_gru),
    "lstm": (dense_shapes(1, 64) + [{"orthogonal": (16, 64)}] + dense_shapes(16, 1), apply_lstm),
    "attention": (
        dense_shapes(1, 8) + [HEADS] * 3 + [{"kernel": (2, 4, 8), "bias": (8,)}] + dense_shapes(8 * LENGTH, 1),
        apply_attention,
    ),
}
META_LOSS = dense_shapes(2, LOSS_UNITS, LOSS_UNITS) + [{"kernel": (LOSS_UNITS, 1)}]


def learned_loss(phi: Weights, y_pred: jax.Array, y: jax.Array) -> jax.Array:
    """Scores each pair of an output and its target; with one output this is the loss per sample."""
    x = jnp.stack([y_pred.ravel(), y.ravel()], -1)
    for layer in phi[:-1]:
        x = jax.nn.silu(dense(layer, x))
    return (x @ phi[-1]["kernel"]).mean()


def cross_entropy(y_pred: jax.Array, y: jax.Array) -> jax.Array:
    return -(y * jnp.log(y_pred + 1e-7)).sum(-1).mean()


def squared_error(y_pred: jax.Array, y: jax.Array) -> jax.Array:
    return ((y_pred - y) ** 2).mean()


def adam(phi: Weights, gradient: Weights, mean: Weights, square: Weights, count: jax.Array) -> Any:
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, gradient)
    rate = OUTER_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    phi = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + ADAM_EPSILON), phi, mean, square)
    return phi, mean, square


def define_score(workload: str, num_steps: int, *, checkpoint: bool, unroll: bool) -> Callable[..., jax.Array]:
    """Returns a function `(phi, theta, x, y) -> scalar`: the task loss of one task after its inner steps."""
    _, apply = LEARNERS[workload]
    task_loss = cross_entropy if WORKLOADS[workload].classifies else squared_error

    def score(phi, theta, x, y):
        def inner_step(theta, _):
            gradient = jax.grad(lambda theta: learned_loss(phi, apply(theta, x), y))(theta)
            return jax.tree.map(lambda t, g: t - INNER_RATE * g, theta, gradient), None

        body = jax.checkpoint(inner_step) if checkpoint else inner_step
        theta, _ = jax.lax.scan(body, theta, length=num_steps, unroll=unroll)
        return task_loss(apply(theta, x), y)

    return score


def prepare(workload: str, num_steps: int, *, checkpoint: bool = False, vmap: bool = True, unroll: bool = False) -> Run:
    """Draws a loss, and defines the outer step.

    Args:
        workload: Name of the workload.
        num_steps: Number of inner steps, all differentiated through.
        checkpoint: Whether the sweep back computes each inner step once more, by `jax.checkpoint`.
        vmap: Whether tasks run side by side, by `vmap`; otherwise one after the other, by `lax.map`.
        unroll: Whether to unroll the scan, which makes it a Python loop.

    Returns:
        A `Run`.
    """
    score = define_score(workload, num_steps, checkpoint=checkpoint, unroll=unroll)
    shapes, _ = LEARNERS[workload]

    def mean_score(phi, theta, x, y):
        if vmap:
            return jax.vmap(score, (None, 0, 0, 0))(phi, theta, x, y).mean()
        return jax.lax.map(lambda task: score(phi, *task), (theta, x, y)).mean()

    @jax.jit
    def step(state, count, key, x, y):
        theta = jax.vmap(lambda key: draw(key, shapes))(jax.random.split(key, len(x)))
        loss, gradient = jax.value_and_grad(mean_score)(state[0], theta, x, y)
        return adam(state[0], gradient, *state[1:], count), loss

    x, y = map(jnp.asarray, WORKLOADS[workload].tasks())
    phi, count = draw(jax.random.key(0), META_LOSS), 0
    state = phi, jax.tree.map(jnp.zeros_like, phi), jax.tree.map(jnp.zeros_like, phi)

    def outer_step() -> float:
        nonlocal state, count
        count += 1
        state, loss = jax.block_until_ready(step(state, float(count), jax.random.key(count), x, y))
        return float(loss)

    return repeat(outer_step)
