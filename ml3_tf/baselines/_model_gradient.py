"""Policies trained by the gradient of a cost through a model of the dynamics.

Shape letters: N policies, T time, O observation, S state, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ml3_tf.arguments import ModelLike, OptimizerLike, TensorLike, check_counts
from ml3_tf.inner_loop import LearnerState, are_finite, expand_like
from ml3_tf.inner_optimizer import InnerOptimizer
from ml3_tf.learner import Learner, Parameters
from ml3_tf.rl.action_distributions import check_deterministic
from ml3_tf.rl.env_spaces import check_vector
from ml3_tf.rl.meta_testing import record_training
from ml3_tf.rl.rollouts import Trajectory, rollout_model

if TYPE_CHECKING:
    import gymnasium


def train_in_model(
    policy: ModelLike,
    cost: Callable[[Trajectory], Any],
    optimizer: OptimizerLike,
    *,
    dynamics: Callable[[Any, Any], Any],
    env: gymnasium.vector.VectorEnv,
    num_steps: int,
    horizon: int,
    learning_rates: TensorLike | None = None,
    parameters: keras.Model | None = None,
    seed: int | None = None,
) -> Trajectory:
    """Trains policies with a task loss that is differentiated through a model, and rolls them out for real.

    For N policies at once. A step rolls each policy out in the model, for the goal and from the start of its last real
    episode, and takes one step of the optimizer::

        theta_new = theta - alpha d/dtheta L_T(tau, g)                  tau: rollout of pi_theta in the model

    The results have the form of those of `meta_test_in_env`, which needs neither the model nor the task loss.

    Args:
        policy: Function without arguments that builds the Keras model of a policy, `[B, O] -> [B, A]`, or one.
        cost: Task loss: function of a `Trajectory` `[N, 1, ...]` that returns the cost of each episode, `[N, 1]`.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        dynamics: Differentiable function of states `[N, 1, S]` and actions `[N, 1, A]`, returning the next states. The
            policies must observe the states.
        env: `gymnasium.vector.VectorEnv` of N environments. To determine their random streams, reset it with a seed
            before.
        num_steps: Number of gradient steps.
        horizon: T, the number of steps of a rollout.
        learning_rates: Optional `[N]`, one for each policy in place of the optimizer's: one run tries many rates.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        seed: Optional integer that determines the fresh policies.

    Returns:
        A `Trajectory` of arrays `[num_steps + 1, N, ...]`: the real rollouts before the first step and after each. A
        policy skips a step that would make its parameters infinite or NaN.

    Raises:
        ValueError: `num_steps` is not positive, `cost` or `learning_rates` have another shape, the policy is
            stochastic, or the environments do not fit it, see `rollout_env`.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> from ml3_tf.envs.mountain_car import mountain_car_step
    >>> from ml3_tf.rl import MLPPolicy
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> policy = lambda: MLPPolicy(2, 1, hidden_units=(8,), action_limit=0.25)
    >>> cost = lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1)
    >>> rollouts = train_in_model(policy, cost, "sgd", dynamics=mountain_car_step, env=env, num_steps=2, horizon=5)
    >>> rollouts.observations.shape
    (3, 3, 6, 2)
    """
    check_counts(num_steps=num_steps)
    check_vector(env)
    num_policies, learner = env.num_envs, Learner(policy, seed=seed)
    check_deterministic(learner.model, "the gradient flows through the action into the dynamics.")
    inner_optimizer = InnerOptimizer(optimizer, learner.model.trainable_variables)
    start = learner.draw(num_policies) if parameters is None else learner.copies(parameters, num_policies)
    slots = _slots_with_rates(inner_optimizer, learning_rates, num_policies)

    @tf.function(autograph=False)
    def step(learners: LearnerState, trajectory: Trajectory) -> LearnerState:
        theta, non_trainable = learners.parameters
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            act = lambda observations: learner.predict(Parameters(theta, non_trainable), observations)
            starts, goals = trajectory.observations[:, tf.newaxis, 0], trajectory.goal[:, tf.newaxis]
            costs = cost(rollout_model(act, dynamics, starts, horizon=horizon, goal=goals, weights=theta))
            _check_costs(costs, (num_policies, 1))
            # Parameters of different policies do not mix: the gradient of the sum holds the gradient of each.
            total = tf.reduce_sum(costs)
        gradients = tape.gradient(total, theta, unconnected_gradients="zero")
        new_theta, slots = inner_optimizer.step(theta, learners.slots, gradients)
        return LearnerState(Parameters(_where_finite(new_theta, theta), non_trainable), slots)

    return record_training(learner, LearnerState(start, slots), step, env, num_steps=num_steps, horizon=horizon)


def _slots_with_rates(
    inner_optimizer: InnerOptimizer, learning_rates: TensorLike | None, num_policies: int
) -> list[tf.Tensor]:
    """Returns the optimizer's first slots, with the learning rate of each policy in its place."""
    slots = inner_optimizer.initial_slots(num_policies)
    if learning_rates is None:
        return slots
    rates = tf.convert_to_tensor(learning_rates, tf.float32)
    names = [slot.name for slot in inner_optimizer.optimizer.variables]
    if tuple(rates.shape) != (num_policies,) or "learning_rate" not in names:
        raise ValueError(
            f"`learning_rates` must have the shape {(num_policies,)}, one rate for each environment, and `optimizer` "
            f"must have no schedule. Received: shape {tuple(rates.shape)}, and an optimizer with the variables {names}"
        )
    slots[names.index("learning_rate")] = rates
    return slots


def _where_finite(new_theta: list[tf.Tensor], theta: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the new parameters of each policy, or the old ones if any of the new is not finite."""
    finite = are_finite(new_theta)
    return [tf.where(expand_like(finite, new), new, old) for new, old in zip(new_theta, theta)]


def _check_costs(costs: tf.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(costs.shape) != shape:
        raise ValueError(
            f"`cost` must return the cost of each episode, shape {shape}. Received: shape {tuple(costs.shape)}. Sum or "
            "average over time alone."
        )
