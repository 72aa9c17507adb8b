"""The model of Algorithm 3 keeps up with the policies: a callback that collects real transitions and refits it.

Shape letters: N environments, T time, S state, A action.
"""

import warnings
from collections.abc import Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.learner import Parameters
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.dynamics import DynamicsEnsemble, DynamicsScore
from ml3_tf.rl.env_spaces import check_vector, env_name
from ml3_tf.rl.policy_trainer import PolicyTrainer
from ml3_tf.rl.rollouts import Trajectory, rollout_env, set_tasks

HELD_OUT = 8  # one episode of so many is never learned from: it scores the model
HOLD = 5  # steps for which a random action is held: one that changed at each step would lead nowhere


class DynamicsRefit(keras.callbacks.Callback):
    """Refits a learned model of the dynamics while a trainer of policies learns a loss through it.

    Algorithm 3 of ML3. Every so many outer iterations the last inner policies are rolled out on the real system, each
    from the start and with the goal that it was trained for (the support of its task). Then the model is fitted to all
    transitions seen so far. Before the first iteration the model is fitted to episodes of random actions.

    One episode in eight is held out, and scores the model: the progress bar and the history show its log-likelihood
    (nats per transition) as `dynamics_log_likelihood`. Episodes of a diverged simulator, and steps after the end of an
    episode, are left out. It is a callback of `ModelBasedTrainer.fit` and of `DemonstrationTrainer.fit`.

    Args:
        dynamics: Compiled `DynamicsEnsemble`; the trainer's `dynamics` is its `next_states`.
        env: `gymnasium.vector.VectorEnv` of N environments that take a task `{"state": ..., "goal": ...}` as attribute
            (see `ml3_tf.envs`). N is at most the number of tasks of an outer step.
        tasks: The dataset of tasks that `fit` is given; random episodes start where its first ones do.
        every: Number of outer iterations, i.e. steps of `fit`, between two refits. The paper's is 100.
        exploration: Number of rounds of N random episodes before the first iteration.
        epochs: Number of passes through the data in each fit.
        batch_size: Transitions in a step of a fit.
        seed: Optional integer that determines the random actions.

    Raises:
        ValueError: Counts below 1; an environment that is not a vector, or whose actions have no limits; in `fit`, a
            trainer of another kind, fewer tasks than environments, or environments that do not take their tasks.
        RolloutError: The simulator diverged in all random episodes, so that there is nothing to start from; or an
            environment broke, see `rollout_env`.

    Example:

    >>> import gymnasium, ml3_tf, ml3_tf.envs
    >>> from ml3_tf.rl import DynamicsEnsemble, MLPPolicy, ModelBasedTrainer, observation_and_goal
    >>> dynamics = DynamicsEnsemble(state_size=2, action_size=1, hidden_units=(8,), seed=0)
    >>> dynamics.compile("adam")
    >>> inputs = ml3_tf.LossInputs(observation_and_goal, {"action": 1, "observation": 2, "goal": 2})
    >>> trainer = ModelBasedTrainer(
    ...     lambda: MLPPolicy(2, 1, hidden_units=(8,), action_limit=0.25),
    ...     ml3_tf.MetaLoss.mlp((10,), features=inputs),
    ...     dynamics=dynamics.next_states,
    ...     horizon=5,
    ...     loss_inputs=inputs,
    ... )
    >>> final_distance = lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1)
    >>> trainer.compile(cost=final_distance, jit_compile=False)
    >>> part = tf.constant([[[-0.5, 0.0]]] * 4), tf.constant([[[0.5, 1.0]]] * 4)
    >>> tasks = tf.data.Dataset.from_tensors({"support": part, "query": part}).repeat()
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=4, vectorization_mode="sync")
    >>> refit = DynamicsRefit(dynamics, env, tasks, every=2, epochs=1)
    >>> history = trainer.fit(tasks, steps_per_epoch=4, callbacks=[refit], verbose=0)
    >>> len(refit.scores)  # after the random episodes, and after 2 and 4 iterations
    3
    """

    def __init__(
        self,
        dynamics: DynamicsEnsemble,
        env: Any,
        tasks: tf.data.Dataset,
        *,
        every: int = 100,
        exploration: int = 4,
        epochs: int = 20,
        batch_size: int = 64,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(every=every, exploration=exploration, epochs=epochs, batch_size=batch_size)
        check_vector(env)
        _check_limits(env)
        self.dynamics: DynamicsEnsemble = dynamics
        self.env: Any = env
        self.tasks: tf.data.Dataset = tasks
        self.every: int = every
        self.exploration: int = exploration
        self.fit_arguments: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "verbose": 0}
        self.generator: np.random.Generator = np.random.default_rng(seed)
        self.replay: ReplayBuffer = ReplayBuffer()
        self.held_out: ReplayBuffer = ReplayBuffer()
        self.scores: list[DynamicsScore] = []  # after each fit
        self._episodes = self._iterations = self._in_epoch = 0
        self._act: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.model, PolicyTrainer):
            raise ValueError(
                "`DynamicsRefit` rolls out the policies of a `ModelBasedTrainer` or `DemonstrationTrainer`: expected "
                f"it among the callbacks of one of their `fit`. Received: {type(self.model).__name__}"
            )
        loop = self._trainer.inner_loop
        act = lambda parameters, observations: loop.predict(parameters, observations[:, tf.newaxis])[:, 0]
        self._act = tf.function(act, autograph=False)
        if not self.replay.size:
            self._explore()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._in_epoch = self._iterations + self._in_epoch, batch + 1
        if (self._iterations + self._in_epoch) // self.every > before // self.every:
            if self._collect(*self._trainer.last_policies()):
                self._fit()
        self._tell(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._iterations, self._in_epoch = self._iterations + self._in_epoch, 0
        self._tell(logs)

    def get_state(self) -> dict[str, Any]:
        """Returns all that it has learned and gathered, which `Checkpoint` saves: arrays and numbers."""
        return {
            "dynamics": [variable.numpy() for variable in self._variables],
            "generator": self.generator.bit_generator.state,
            "replay": self.replay.transitions(),
            "held_out": self.held_out.transitions(),
            "scores": [list(score) for score in self.scores],
            "counts": [self._episodes, self._iterations, self._in_epoch],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes back to what `get_state` returned."""
        for variable, value in zip(self._variables, state["dynamics"], strict=True):
            variable.assign(value)
        self.generator.bit_generator.state = state["generator"]
        self.replay, self.held_out = ReplayBuffer(state["replay"]), ReplayBuffer(state["held_out"])
        self.scores = [DynamicsScore(*score) for score in state["scores"]]
        self._episodes, self._iterations, self._in_epoch = state["counts"]

    @property
    def _variables(self) -> list[tf.Variable]:
        """Those of the model and of its optimizer."""
        optimizer: Any = self.dynamics.optimizer
        if not optimizer.built:
            optimizer.build(self.dynamics.trainable_variables)
        return [variable.value for variable in [*self.dynamics.weights, *optimizer.variables]]

    @property
    def _trainer(self) -> PolicyTrainer:
        return cast(PolicyTrainer, self.model)  # checked in `on_train_begin`

    def _explore(self) -> None:
        for batch in self.tasks.take(self.exploration):
            actions = _RandomActions(self.env, self.generator)
            self._roll_out(actions, *batch["support"])
        if not self.replay.size:
            raise RolloutError(
                "There is nothing to fit the dynamics to: the simulator diverged in every random episode, or `tasks` "
                "is empty. Check the environment, or the starts of the tasks.",
                diverged=True,
            )
        self._fit()

    def _collect(self, parameters: Parameters, support: tuple[tf.Tensor, tf.Tensor]) -> bool:
        parameters = tf.nest.map_structure(lambda values: values[: self.env.num_envs], parameters)
        return self._roll_out(lambda observations: self._act(parameters, observations), *support)

    def _roll_out(self, policy: Any, starts: tf.Tensor, goals: tf.Tensor) -> bool:
        """Adds an episode of each environment to the data. Returns whether there was one."""
        number = self.env.num_envs
        if starts.shape[0] < number:
            raise ValueError(
                "Each environment takes the task of a policy of its own: expected at least as many tasks in an outer "
                f"step as environments. Received: {starts.shape[0]} tasks, num_envs={number}"
            )
        first = {"state": starts[:number, :1], "goal": goals[:number, :1]}
        set_tasks(self.env, {name: np.asarray(values, np.float64) for name, values in first.items()})
        try:
            trajectory = rollout_env(policy, self.env, horizon=self._trainer.horizon)
        except RolloutError as error:
            if not error.diverged:
                raise
            warnings.warn(f"The model of the dynamics is not refitted to a diverged simulation. {error}", stacklevel=2)
            return False
        held_out = (np.arange(number) + self._episodes) % HELD_OUT == HELD_OUT - 1
        self._episodes += number
        self.replay.add(trajectory, ~held_out)
        self.held_out.add(trajectory, held_out)
        return True

    def _fit(self) -> None:
        states, actions, next_states = self.replay.transitions()
        self.dynamics.adapt(states, actions, next_states)
        self.dynamics.fit((states, actions), next_states, **self.fit_arguments)
        if self.held_out.size:
            self.scores.append(self.dynamics.score(*self.held_out.transitions()))

    def _tell(self, logs: dict[str, Any] | None) -> None:
        if logs is not None and self.scores:
            logs["dynamics_log_likelihood"] = self.scores[-1].log_likelihood


class ReplayBuffer:
    """The transitions seen so far; it grows without a limit.

    Args:
        transitions: Those to start with, as `transitions` returns them.

    Example:

    >>> from ml3_tf.rl.rollouts import Trajectory
    >>> states, actions, mask = np.zeros((2, 4, 3)), np.ones((2, 3, 1)), np.array([[1, 1, 0], [1, 1, 1]])
    >>> replay = ReplayBuffer()
    >>> replay.add(Trajectory(states, actions, None, None, mask))
    >>> [part.shape for part in replay.transitions()]
    [(5, 3), (5, 1), (5, 3)]
    """

    def __init__(self, transitions: Sequence[np.ndarray] = ()) -> None:
        self._parts: list[list[np.ndarray]] = [list(transitions)] if len(transitions) else []

    @property
    def size(self) -> int:
        """Number of transitions."""
        return sum(len(states) for states, _, _ in self._parts)

    def add(self, trajectory: Trajectory, episodes: Any = slice(None)) -> None:
        """Adds the transitions of a `Trajectory` `[N, ...]` that happened, of all or of some episodes."""
        states, happened = trajectory.observations[episodes], trajectory.mask[episodes] > 0
        parts = states[:, :-1], trajectory.actions[episodes], states[:, 1:]
        self._parts.append([part[happened] for part in parts])

    def transitions(self) -> list[np.ndarray]:
        """Returns `(states, actions, next_states)`, each `[transitions, ...]`."""
        return [np.concatenate(parts) for parts in zip(*self._parts)]


def _check_limits(env: Any) -> None:
    space = env.single_action_space
    if not (hasattr(space, "low") and np.isfinite([space.low, space.high]).all()):
        raise ValueError(
            "`env` must have continuous actions with finite limits, within which the first actions are drawn, and "
            f"which a model of the dynamics can be differentiated by. Received: {env_name(env)} with the action space "
            f"{space}. For discrete actions, learn without a model: `ModelFreeTrainer`."
        )


class _RandomActions:
    """A policy: uniform actions within the limits of the environments, each held for some steps."""

    def __init__(self, env: Any, generator: np.random.Generator) -> None:
        space = env.single_action_space
        shape = (env.num_envs, *space.shape)
        self._draw = lambda: generator.uniform(space.low, space.high, shape).astype(np.float32)
        self._step = 0

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        if self._step % HOLD == 0:
            self._actions = self._draw()
        self._step += 1
        return self._actions
