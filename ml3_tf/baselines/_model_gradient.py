"""Policies trained by the gradient of a cost through a model of the dynamics: what a learned loss does without.

Shape letters: N policies, T time.
"""

import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.inner_loop import LearnerState
from ml3_tf.inner_optimizer import InnerOptimizer
from ml3_tf.learner import Learner, Parameters
from ml3_tf.rl.model_based import record_training
from ml3_tf.rl.rollouts import rollout_model


def train_in_model(
    policy,
    cost,
    optimizer,
    dynamics,
    env,
    steps,
    horizon,
    parameters=None,
    learning_rates=None,
    seed=None,
    env_seed=None,
):
    """Trains policies with a task loss that is differentiated through a model, and rolls them out for real.

    For N policies at once. A step rolls each policy out in the model, from where its last real episode started and for
    the goal of that, and takes one step of the optimizer::

        theta_new = theta - alpha d/dtheta L_T(tau, g)                  tau: rollout of pi_theta in the model

    Other than `meta_test_in_env`, whose results have the same form, it needs the model and the task loss.

    Args:
        policy: As in `ModelBasedTrainer`.
        cost: Task loss: function of a `Trajectory` `[N, 1, ...]` that returns the cost of each episode, `[N, 1]`.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        dynamics: Differentiable function of states `[N, 1, S]` and actions `[N, 1, A]`, returning the next states.
        env: `gymnasium.vector.VectorEnv` of N environments.
        steps: Number of gradient steps.
        horizon: T, the number of steps of a rollout.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        learning_rates: Optional `[N]`, one for each policy in place of the optimizer's: many are tried at once.
        seed: Optional integer that determines the fresh policies.
        env_seed: Optional seed of the environments' first reset.

    Returns:
        A `Trajectory` of arrays `[steps + 1, N, ...]`: the real rollouts before the first step and after each. A
        policy does not take a step that is not finite, and stays what it was.

    Raises:
        ValueError: `steps` is not positive, a cost or learning rates of another shape, or environments that do not fit
            the policy, see `rollout_env`.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> from ml3_tf.envs.mountain_car import mountain_car_step
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> policy = lambda: GaussianPolicy(2, 1, hidden_units=(8,), action_limit=0.25)
    >>> final_distance = lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1)
    >>> train_in_model(policy, final_distance, "sgd", mountain_car_step, env, steps=2, horizon=5).observations.shape
    (3, 3, 6, 2)
    """
    check_counts(steps=steps)
    number, learner = env.num_envs, Learner(policy, seed)
    optimizer = InnerOptimizer(optimizer, learner.model.trainable_variables)
    start = learner.draw(number) if parameters is None else learner.copies(parameters, number)
    slots = _with_rates(optimizer, learning_rates, number)

    @tf.function(autograph=False)
    def step(state, trajectory):
        theta, fixed = state.parameters
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            act = lambda states: learner.apply(Parameters(theta, fixed), states, training=False)[0]
            starts, goals = trajectory.observations[:, tf.newaxis, 0], trajectory.goal[:, tf.newaxis]
            costs = cost(rollout_model(act, dynamics, starts, horizon, goals))
            _check_costs(costs, (number, 1))
            # Parameters of different policies do not mix: the gradient of the sum holds the gradient of each.
            total = tf.reduce_sum(costs)
        gradients = tape.gradient(total, theta, unconnected_gradients="zero")
        new_theta, slots = optimizer.step(theta, state.slots, gradients)
        return LearnerState(Parameters(_where_finite(new_theta, theta), fixed), slots)

    return record_training(learner, LearnerState(start, slots), step, env, steps, horizon, env_seed)


def _with_rates(optimizer, learning_rates, number):
    slots = optimizer.initial_slots(number)
    if learning_rates is None:
        return slots
    rates = tf.convert_to_tensor(learning_rates, tf.float32)
    names = [slot.name for slot in optimizer.optimizer.variables]
    if tuple(rates.shape) != (number,) or "learning_rate" not in names:
        raise ValueError(
            f"`learning_rates` must have shape {(number,)}, one for each environment, and the optimizer no schedule. "
            f"Received: shape {tuple(rates.shape)}, and an optimizer with {names}"
        )
    slots[names.index("learning_rate")] = rates
    return slots


def _where_finite(new_theta, theta):
    """The new parameters of each policy, or the old ones if any of the new is not finite."""
    rows = lambda values: tf.reshape(values, [values.shape[0], -1])
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(rows(new)), 1) for new in new_theta], 0)
    choose = lambda new, old: tf.where(tf.reshape(finite, [-1] + [1] * (new.shape.rank - 1)), new, old)
    return [choose(new, old) for new, old in zip(new_theta, theta)]


def _check_costs(costs, shape):
    if tuple(costs.shape) != shape:
        raise ValueError(
            f"`cost` returns the cost of each episode, shape {shape}. Received: shape {tuple(costs.shape)}"
        )
