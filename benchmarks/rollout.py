"""Time of meta-training through a rollout: compilation, and outer steps of Algorithm 3 of ML3.

    python benchmarks/rollout.py

The workload is the mountain car's in the paper's own sizes: a linear policy of two layers (200 units), horizon 35, a
learned loss of two layers of 400, one inner SGD step, Adam outside, 300 outer steps; and ten times the horizon. The
benchmark prints the seconds of the first call (tracing and compilation), the seconds of the 299 steps that follow, and
their sum. The last column is processor time, which other programs on the machine do not change. A hand-written JAX
`scan` (`pip install jax`) is timed in the same run.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tyro

import ml3_tf
from ml3_tf.envs.mountain_car import GOAL, MAX_FORCE, START, mountain_car_step
from ml3_tf.rl import MLPPolicy, ModelBasedTrainer, Trajectory, observation_and_goal

HORIZON, OUTER_STEPS, INNER_RATE, OUTER_RATE = 35, 300, 1e-3, 1e-3
LOSS_INPUTS = ml3_tf.LossInputs(observation_and_goal, {"force": 1, "observation": 2, "goal": 2})

Steps = Callable[[int], Any]


def build_policy() -> MLPPolicy:
    return MLPPolicy(2, 1, hidden_units=(200,), activation="linear", action_limit=MAX_FORCE, use_bias=False)


def distance(trajectory: Trajectory) -> tf.Tensor:
    return tf.norm(trajectory.observations - trajectory.goal[..., tf.newaxis, :], axis=[-2, -1])


def tensorflow_steps(horizon: int) -> Steps:
    """Returns a function that takes a number of outer steps of `ModelBasedTrainer`."""
    trainer = ModelBasedTrainer(
        build_policy,
        ml3_tf.MetaLoss.mlp((400, 400), activation="elu", features=LOSS_INPUTS),
        dynamics=mountain_car_step,
        horizon=horizon,
        loss_inputs=LOSS_INPUTS,
        seed=0,
    )
    trainer.compile(keras.optimizers.Adam(OUTER_RATE), distance, keras.optimizers.SGD(INNER_RATE))
    part = tf.constant([[START]]), tf.constant([[GOAL]])
    tasks = tf.data.Dataset.from_tensors({"support": part, "query": part}).repeat()
    return lambda num_steps: trainer.fit(tasks, steps_per_epoch=num_steps, verbose=0)


def jax_task_loss(horizon: int) -> Callable[..., Any]:
    """Returns the task loss after an inner step as a function of phi and theta, by hand in JAX: a `lax.scan`."""
    import jax
    import jax.numpy as jnp

    goal, start = jnp.array(GOAL), jnp.array(START)

    def policy(theta, states):
        z = states @ theta[0] @ theta[1]
        return MAX_FORCE * z / jnp.sqrt(1 + z**2)

    def loss(phi, inputs):
        for kernel, bias in phi[:-1]:
            inputs = jax.nn.elu(inputs @ kernel + bias)
        return (inputs @ phi[-1][0]).mean()

    def dynamics(state, action):
        x, v = state
        v = jnp.clip(v + (action[0] / 0.2 - 1.96 * jnp.cos(3 * x) - 0.3 * v) * 0.1, -1.5, 1.5)
        x_new = jnp.clip(x + 0.1 * v, -1.2, 0.5)
        return jnp.stack([x_new, jnp.where((x_new <= -1.2) & (v < 0), 0.0, v)])

    def rollout(theta):
        def step(state, _):
            new = dynamics(state, policy(theta, state))
            return new, new

        return jnp.concatenate([start[None], jax.lax.scan(step, start, length=horizon)[1]])

    def task_loss(phi, theta):
        states = jax.lax.stop_gradient(rollout(theta))[:-1]
        seen = jnp.concatenate([states, jnp.broadcast_to(goal, states.shape)], -1)
        inner = lambda theta: loss(phi, jnp.concatenate([policy(theta, states), seen], -1))
        theta = jax.tree.map(lambda t, g: t - INNER_RATE * g, theta, jax.grad(inner)(theta))
        return jnp.linalg.norm(rollout(theta) - goal)

    return task_loss


def jax_steps(horizon: int) -> Steps:
    """Returns a function that takes a number of outer steps in JAX: `jit` of `grad`, Adam included."""
    import jax
    import jax.numpy as jnp

    task_loss = jax_task_loss(horizon)

    def initialize(key, sizes):
        keys = jax.random.split(key, len(sizes))
        return [(jax.nn.initializers.glorot_uniform()(k, s), jnp.zeros(s[1])) for k, s in zip(keys, sizes)]

    @jax.jit
    def step(phi, mean, square, count, key):
        theta = [kernel for kernel, _ in initialize(key, [(2, 200), (200, 1)])]
        gradient = jax.grad(task_loss)(phi, theta)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, gradient)
        rate = OUTER_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        phi = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), phi, mean, square)
        return phi, mean, square

    phi = initialize(jax.random.key(0), [(5, 400), (400, 400), (400, 1)])
    state, count = [phi, jax.tree.map(jnp.zeros_like, phi), jax.tree.map(jnp.zeros_like, phi)], 0

    def run(num_steps):
        nonlocal count
        for _ in range(num_steps):
            count += 1
            state[:] = jax.block_until_ready(step(*state, float(count), jax.random.key(count)))

    return run


def measure(make: Callable[[], Steps], outer_steps: int = OUTER_STEPS) -> tuple[float, float, float]:
    """Returns the wall-clock seconds of the first step and of the others, and the processor seconds of all."""
    wall, processor = [time.perf_counter()], time.process_time()
    run = make()
    for num_steps in (1, outer_steps - 1):
        run(num_steps)
        wall.append(time.perf_counter())
    return wall[1] - wall[0], wall[2] - wall[1], time.process_time() - processor


def main(jax: bool = True) -> None:
    """Prints a table of the horizons.

    Args:
        jax: Whether to time JAX too.
    """
    horizons = HORIZON, 10 * HORIZON
    makers = {f"ml3_tf, horizon {h}": lambda h=h: tensorflow_steps(h) for h in horizons}
    if jax:
        makers |= {f"JAX, scan, horizon {h}": lambda h=h: jax_steps(h) for h in horizons}
    print(f"{'':32}  first step (s)  {OUTER_STEPS - 1} more (s)  sum (s)  processor (s)")
    for name, make in makers.items():
        try:
            first, rest, processor = measure(make)
        except ImportError as error:
            print(f"{name:32}  not installed ({error.name})")
            continue
        print(f"{name:32}  {first:14.1f}  {rest:12.1f}  {first + rest:7.1f}  {processor:13.1f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
