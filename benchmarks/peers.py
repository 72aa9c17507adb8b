"""The workload of `meta_step.py` by hand in other frameworks, as a researcher would write it there.

Each function returns a function without arguments that takes one outer step, or raises `ImportError`. Networks, losses,
optimizers and sizes are those of `meta_step.py`, and so are the fresh learners.
"""

from collections.abc import Callable

import numpy as np

NUM_TASKS, NUM_POINTS, INNER_STEPS, INNER_RATE, OUTER_RATE = 16, 100, 3, 1e-3, 1e-3
LEARNER = [(1, 40), (40, 40), (40, 1)]
LOSS = [(2, 40), (40, 40), (40, 1)]


def sines(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws inputs and targets of sine waves, each `[NUM_TASKS, NUM_POINTS, 1]`."""
    x = rng.uniform(-5, 5, (NUM_TASKS, NUM_POINTS, 1))
    y = rng.uniform(0.2, 5, (NUM_TASKS, 1, 1)) * np.sin(x - rng.uniform(-np.pi, np.pi, (NUM_TASKS, 1, 1)))
    return x.astype("float32"), y.astype("float32")


def jax_step() -> Callable[[], None]:
    """JAX: `jit` of `grad` through a loop of `vmap(grad)`, with Adam by hand."""
    import jax
    import jax.numpy as jnp

    def initialize(key, sizes):
        keys = jax.random.split(key, len(sizes))
        return [(jax.nn.initializers.glorot_uniform()(k, s), jnp.zeros(s[1])) for k, s in zip(keys, sizes)]

    def apply(weights, x, activation):
        for kernel, bias in weights[:-1]:
            x = activation(x @ kernel + bias)
        return x @ weights[-1][0] + weights[-1][1]

    def task_loss(phi, theta, x, y):
        def inner_loss(theta):
            return apply(phi, jnp.concatenate([apply(theta, x, jnp.tanh), y], -1), jax.nn.silu).mean()

        for _ in range(INNER_STEPS):
            theta = jax.tree.map(lambda t, g: t - INNER_RATE * g, theta, jax.grad(inner_loss)(theta))
        return jnp.mean((apply(theta, x, jnp.tanh) - y) ** 2)

    @jax.jit
    def step(phi, mean, square, count, key, x, y):
        theta = jax.vmap(lambda k: initialize(k, LEARNER))(jax.random.split(key, NUM_TASKS))
        gradient = jax.grad(lambda phi: jax.vmap(task_loss, (None, 0, 0, 0))(phi, theta, x, y).mean())(phi)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, gradient)
        rate = OUTER_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        phi = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), phi, mean, square)
        return phi, mean, square

    rng, key = np.random.default_rng(0), jax.random.key(0)
    phi = initialize(key, LOSS)
    state, count = [phi, jax.tree.map(jnp.zeros_like, phi), jax.tree.map(jnp.zeros_like, phi)], 0

    def one_step() -> None:
        nonlocal count
        count += 1
        state[:] = jax.block_until_ready(step(*state, float(count), jax.random.fold_in(key, count), *sines(rng)))

    return one_step


def torch_step() -> Callable[[], None]:
    """PyTorch: `torch.func.vmap` of `grad` in a loop, with `torch.optim.Adam`."""
    import torch
    from torch.func import grad, vmap

    def initialize(sizes, *leading):
        bounds = [(6 / (a + b)) ** 0.5 for a, b in sizes]
        return [(torch.empty(*leading, *s).uniform_(-b, b), torch.zeros(*leading, s[1])) for s, b in zip(sizes, bounds)]

    def apply(weights, x, activation):
        for kernel, bias in weights[:-1]:
            x = activation(x @ kernel + bias)
        return x @ weights[-1][0] + weights[-1][1]

    phi = initialize(LOSS)
    leaves = [leaf.requires_grad_() for pair in phi for leaf in pair]
    optimizer = torch.optim.Adam(leaves, OUTER_RATE, eps=1e-7)

    def inner_loss(theta, x, y):
        return apply(phi, torch.cat([apply(theta, x, torch.tanh), y], -1), torch.nn.functional.silu).mean()

    def task_loss(theta, x, y):
        for _ in range(INNER_STEPS):
            gradients = grad(inner_loss)(theta, x, y)
            theta = [tuple(t - INNER_RATE * g for t, g in zip(*pairs)) for pairs in zip(theta, gradients)]
        return ((apply(theta, x, torch.tanh) - y) ** 2).mean()

    rng = np.random.default_rng(0)

    def one_step() -> None:
        x, y = (torch.from_numpy(array) for array in sines(rng))
        optimizer.zero_grad()
        vmap(task_loss)(initialize(LEARNER, NUM_TASKS), x, y).mean().backward()
        optimizer.step()

    return one_step


PEERS = {"JAX, jit + vmap": jax_step, "PyTorch, torch.func": torch_step}
