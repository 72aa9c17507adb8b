"""Model-based meta-training: a loss for policies, learned through a differentiable model of the dynamics.

Shape letters: N tasks, B episodes of a task, T time, S state, A action, G goal.
"""

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner
from ml3_tf.meta_trainer import MetaTrainer
from ml3_tf.rl.loss_inputs import learning_batch, state_and_goal
from ml3_tf.rl.rollouts import TIME_UNROLL, Trajectory, rollout_env, rollout_model


class ModelBasedTrainer(MetaTrainer):
    """Learns a loss that trains policies: moves phi so that their rollouts in a model cost little.

    Algorithm 3 of ML3 for a given model. An inner step rolls each policy out and descends the learned loss of what
    happened; the task loss is a cost of the new policy's rollout, differentiated through cost, dynamics and policy::

        tau       = rollout of pi_theta in the model
        theta_new = theta - alpha d/dtheta E[M_phi(tau, g)]
        phi_new   = phi - eta d/dphi L_T(tau_new, g)             tau_new: rollout of pi_theta_new in the model

    **The same step as in the real world.** The learned loss sees, for each time step, the action of the policy
    (`y_pred`) and what `loss_inputs` makes of the trajectory (`y_true`). No inner gradient flows through how the states
    came about: they are data, as if an environment had made them. So what meta-training teaches is what
    `policy.compile(loss=meta_loss)` does with states from anywhere, without a model (Algorithm 5).

    Tasks are `{"support": (initial_states, goals), "query": (initial_states, goals)}`, each `[N, B, ...]`: where the
    rollouts that policies learn from start, and those that are scored.

    Args:
        policy: Function without arguments that builds the Keras model of a policy, `[B, S] -> [B, A]`, or one.
        meta_loss: The `MetaLoss` to be learned.
        dynamics: Differentiable function of states `[N, B, S]` and actions `[N, B, A]`, returning the next states. It
            may hold variables, and they may change between calls of `fit`.
        horizon: T, the number of steps of a rollout.
        loss_inputs: Function of a `Trajectory` that returns what the loss sees beside each action, `[..., T, width]`.
        inner_steps: As in `MetaTrainer`.
        unroll: As in `MetaTrainer`.
        time_unroll: As in `rollout_model`.
        seed: As in `MetaTrainer`.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: A horizon below 1, or step counts that do not fit.

    Example:

    >>> import keras, ml3_tf
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> trainer = ModelBasedTrainer(
    ...     policy=lambda: GaussianPolicy(2, 2, hidden_units=(8,)),
    ...     meta_loss=ml3_tf.MetaLoss.mlp((10,), features={"action": 2, "state": 2, "goal": 2}),
    ...     dynamics=lambda states, actions: states + 0.1 * actions,
    ...     horizon=10,
    ... )
    >>> final_distance = lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1)
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss=final_distance)
    >>> starts_and_goals = tf.zeros((4, 1, 2)), tf.ones((4, 1, 2))
    >>> tasks = tf.data.Dataset.from_tensors({"support": starts_and_goals, "query": starts_and_goals})
    >>> history = trainer.fit(tasks, verbose=0)
    """

    def __init__(
        self,
        policy,
        meta_loss,
        dynamics,
        horizon,
        loss_inputs=state_and_goal,
        inner_steps=1,
        unroll=None,
        time_unroll=TIME_UNROLL,
        seed=None,
        **kwargs,
    ):
        super().__init__(policy, meta_loss, inner_steps, unroll, seed, **kwargs)
        check_counts(horizon=horizon)
        self.horizon, self.time_unroll = horizon, time_unroll
        self.loss_inputs = loss_inputs
        # Called through a function: a model of the dynamics is no part of this one, whose weights are phi's.
        self._dynamics = lambda states, actions: dynamics(states, actions)
        self._kept = _Kept()

    def compile(self, optimizer="adam", loss=None, inner_optimizer="sgd", **kwargs):
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss.
            loss: Task loss: function of the query `Trajectory` that returns the cost of each episode, `[N, B]`.
            inner_optimizer: Inner optimizer, moves the policies.
            **kwargs: Further arguments of `MetaTrainer.compile`.

        Raises:
            ValueError: `loss` is no function.
        """
        if not callable(loss):
            raise ValueError(
                "`loss` is the task loss: expected a function of a `Trajectory` that returns the cost of each episode, "
                f"[N, B]. Received: loss={loss!r}"
            )
        self.trajectory_cost = loss
        super().compile(optimizer, lambda _, cost: cost, inner_optimizer, **kwargs)

    def rollout(self, parameters, initial_states, goal):
        """Rolls out the policies with these `Parameters` in the model: a `Trajectory` `[N, B, ...]`."""
        return rollout_model(
            lambda states: self.inner_loop.predict(parameters, states),
            self._dynamics,
            initial_states,
            self.horizon,
            goal,
            time_unroll=self.time_unroll,
        )

    def last_policies(self):
        """The policies that the last step of `fit` trained: what Algorithm 3 rolls out on the real system.

        Returns:
            `(parameters, (initial_states, goals))`: `Parameters` of N policies and their query, `[N, B, ...]`.

        Raises:
            RuntimeError: No step was taken.
        """
        if self._kept.variables is None:
            raise RuntimeError("There are no policies yet: `fit` has taken no step.")
        return tf.nest.map_structure(tf.convert_to_tensor, self._kept.variables)

    def after_last_step(self, parameters, data):
        self._kept.assign((parameters, tuple(data["query"])))

    def support(self, parameters, data):
        trajectory = self.rollout(parameters, *data["support"])
        return learning_batch(tf.nest.map_structure(tf.stop_gradient, trajectory), self.loss_inputs)

    def query(self, parameters, data):
        cost = self.trajectory_cost(self.rollout(parameters, *data["query"]))
        expected = tuple(data["query"][0].shape[:2])
        if tuple(cost.shape) != expected:
            raise ValueError(
                f"The task loss returns the cost of each episode, shape {expected}. Received: shape {tuple(cost.shape)}"
            )
        return cost, cost, None


class _Kept:
    """A structure of tensors that outlives the graph which computed it."""

    def __init__(self):
        self.variables = None

    def assign(self, values):
        shapes = tf.nest.map_structure(lambda value: value.shape, values)
        if self.variables is None or tf.nest.map_structure(lambda kept: kept.shape, self.variables) != shapes:
            with tf.init_scope():
                zeros = lambda value: tf.Variable(tf.zeros(value.shape, value.dtype), trainable=False)
                self.variables = tf.nest.map_structure(zeros, values)
        tf.nest.map_structure(lambda kept, value: kept.assign(value), self.variables, values)


def meta_test_in_env(
    policy, loss, optimizer, env, steps, horizon, loss_inputs=state_and_goal, parameters=None, seed=None, env_seed=None
):
    """Trains policies in real environments with `loss` alone: no model, no task loss, no reward.

    Algorithm 5 of ML3 for N policies at once, one in each environment of a vector. A step rolls each policy out
    once and takes one step of the optimizer on what happened, as `policy.compile(optimizer, loss)` and
    `train_on_batch` would.

    Args:
        policy: As in `ModelBasedTrainer`.
        loss: A `MetaLoss`, or any other Keras loss of what `loss_inputs` returns and the actions.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        env: `gymnasium.vector.VectorEnv` of N environments.
        steps: Number of gradient steps.
        horizon: T, the number of steps of a rollout.
        loss_inputs: As in `ModelBasedTrainer`.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        seed: Optional integer that determines the fresh policies.
        env_seed: Optional seed of the environments' first reset.

    Returns:
        A `Trajectory` of arrays `[steps + 1, N, ...]`: the rollouts before the first step and after each.

    Raises:
        ValueError: `steps` is not positive, or the environments do not fit the policy, see `rollout_env`.

    Example:

    >>> import gymnasium, ml3_tf, ml3_tf.envs
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> loss = ml3_tf.MetaLoss.mlp((10,), features={"action": 1, "state": 2, "goal": 2})
    >>> policy = lambda: GaussianPolicy(2, 1, hidden_units=(8,), action_limit=0.25)
    >>> meta_test_in_env(policy, loss, "sgd", env, steps=2, horizon=5).observations.shape
    (3, 3, 6, 2)
    """
    check_counts(steps=steps)
    learner = Learner(policy, seed)
    loop = InnerLoop(learner, loss, optimizer)
    start = loop.start(env.num_envs, None if parameters is None else learner.copies(parameters, env.num_envs))

    @tf.function(autograph=False)
    def step(state, trajectory):
        return loop.step(state, lambda _: learning_batch(trajectory, loss_inputs))

    return record_training(learner, start, step, env, steps, horizon, env_seed)


def record_training(learner, start, step, env, steps, horizon, env_seed=None):
    """Rolls policies out in real environments before their first training step and after each.

    Args:
        learner: `Learner` of the policies.
        start: `LearnerState` of N policies.
        step: Function `(LearnerState, Trajectory) -> LearnerState`; it sees the last rollout.
        env: As in `meta_test_in_env`.
        steps: Number of training steps.
        horizon: T, the number of steps of a rollout.
        env_seed: As in `meta_test_in_env`.

    Returns:
        A `Trajectory` of arrays `[steps + 1, N, ...]`.
    """

    @tf.function(autograph=False)
    def act(parameters, states):
        return learner.apply(parameters, states[:, tf.newaxis], training=False)[0][:, 0]

    def roll_out(env_seed=None):
        return rollout_env(lambda states: act(state.parameters, states), env, horizon, env_seed)

    state = start
    rollouts = [roll_out(env_seed)]
    for _ in range(steps):
        state = step(state, rollouts[-1])
        rollouts.append(roll_out())
    return Trajectory(*(np.stack(parts) for parts in zip(*rollouts)))
