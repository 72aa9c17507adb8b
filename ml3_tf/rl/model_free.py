"""Model-free meta-training: a loss for policies, learned from nothing but experience. Algorithm 4 of ML3.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action, S state, G goal.
"""

import time
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, LossInputs, ModelLike, OptimizerLike, check_counts
from ml3_tf.inner_loop import LearnerState
from ml3_tf.learner import Parameters
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.outer_loop import ExtraLoss, OuterLoop
from ml3_tf.rl.action_distributions import ActionDistribution, GaussianActions, get_action_distribution
from ml3_tf.rl.loss_inputs import learning_batch, mini_batches
from ml3_tf.rl.meta_testing import mean_returns
from ml3_tf.rl.policy_gradient import PolicyGradient
from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.simulators import Sampler, as_tasks


class ModelFreeTrainer(OuterLoop):
    """Learns a loss that trains policies, from experience alone: neither a model nor a differentiable reward.

    Algorithm 4 of ML3. An inner step descends the learned loss of the experience of a stochastic policy; the task loss
    is the policy gradient's surrogate on fresh rollouts of the new policy::

        tau       = rollouts of pi_theta                                                           collect
        theta_new = theta - alpha d/dtheta E[M_phi(tau, pi_theta)]                                  learn
        tau_new   = rollouts of pi_theta_new                                                        collect
        phi_new   = phi - eta d/dphi -E[sum_t W_t log pi_theta_new(a_t | s_t)], on tau_new          differentiate, eq. 8

    The next inner step learns from the new rollouts: each is used twice. Where simulation costs more, `outer_epochs` of
    `compile` let phi take more steps from each, near the policies that acted, see `PolicyGradient(clip_range=...)`.
    Rollouts are data: no gradient flows through actions, rewards or states.

    The learned loss sees the policy's outputs (`y_pred`), e.g. mean and standard deviation, and `loss_inputs` of the
    trajectory (`y_true`), so that at meta-test `policy.compile(loss=meta_loss)` does the rest.

    `fit` takes batches of tasks, see `as_tasks`: starts, goals or seeds of episodes. It reports `loss`, mean `return`
    after the last inner step, and `samples`: environment steps so far.
    Args:
        policy: Function without arguments that builds a stochastic policy, or one, see `get_action_distribution`.
        meta_loss: The `MetaLoss` to be learned.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments, see `Sampler`.
        horizon: T, the number of steps of an episode.
        loss_inputs: `LossInputs`, what the loss sees beside the policy's outputs; some see rewards (`with_return`).
        inner_steps: Number of times that a policy gathers experience and learns from it, before a fresh one is drawn.
        unroll: Number of inner steps that the outer gradient flows through; divides `inner_steps`. More are noisier.
        batch_size: Time steps of a task in one step of the inner optimizer, see `mini_batches`. `None`: all.
        seed: Optional integer that determines policies, noise and mini-batches.
        name: Optional name.

    Raises:
        ValueError: A deterministic policy, or counts, `loss_inputs`, simulator or tasks that do not fit.
        RolloutError: In `fit`: an environment diverged or broke. The loss keeps the weights from before that step.

    Example:

    >>> import ml3_tf
    >>> from ml3_tf.rl import GaussianPolicy, Simulator, observation_and_action
    >>> inputs = ml3_tf.LossInputs(observation_and_action, {"mean_and_std": 4, "observation": 2, "action": 2})
    >>> trainer = ModelFreeTrainer(
    ...     lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5),
    ...     ml3_tf.MetaLoss.mlp((10,), features=inputs),
    ...     simulator=Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1)),
    ...     horizon=10,
    ...     loss_inputs=inputs,
    ... )
    >>> trainer.compile(keras.optimizers.Adam(1e-3), PolicyGradient(discount=0.9))
    >>> tasks = tf.data.Dataset.from_tensors({"state": tf.zeros((4, 2, 2)), "goal": tf.ones((4, 2, 2))})
    >>> history = trainer.fit(tasks, verbose=0)
    >>> history.history["samples"]  # two rollouts of 4 x 2 episodes
    [160.0]
    """

    def __init__(
        self,
        policy: ModelLike,
        meta_loss: MetaLoss,
        *,
        simulator: Any,
        horizon: int,
        loss_inputs: LossInputs,
        inner_steps: int = 1,
        unroll: int = 1,
        batch_size: int | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(policy, meta_loss, inner_steps=inner_steps, unroll=unroll, seed=seed, name=name)
        loss_inputs.check_fits(meta_loss)
        self.simulator: Any = simulator
        self.horizon: int = horizon
        self.loss_inputs: LossInputs = loss_inputs
        self.batch_size: int | None = batch_size
        self.distribution: ActionDistribution = get_action_distribution(self.learner.model)
        self.action_size: int = self.distribution.size
        self.seeds: keras.random.SeedGenerator = keras.random.SeedGenerator(seed)
        self._evaluation_seeds = keras.random.SeedGenerator(seed)
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._return_mean = keras.metrics.Mean(name="return")
        self.sampler: Sampler = self._make_sampler()

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: PolicyGradient | None = None,
        inner_optimizer: OptimizerLike = "sgd",
        *,
        extra_loss: ExtraLoss | None = None,
        beta: float = 1.0,
        gamma: float = 1.0,
        outer_epochs: int = 1,
        outer_batch_size: int | None = None,
        jit_compile: bool = True,
        run_eagerly: bool = False,
    ) -> None:
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss.
            loss: `PolicyGradient`, eq. 8 with its options; `None`: with its defaults.
            inner_optimizer: Inner optimizer, moves the policies.
            extra_loss: Optional function `(parameters, batch) -> [N]`, e.g. `action_excess`. The batch holds "support"
                (a list of mini-batches) and "query" (the fresh rollouts) as `(x, y, sample_weight)`, and "tasks".
            beta: Weight of `loss`.
            gamma: Weight of `extra_loss`.
            outer_epochs: Number of passes of the outer optimizer over the tasks, with the same rollouts.
            outer_batch_size: Number of tasks in one step of the outer optimizer; divides their number. `None`: all.
            jit_compile: Whether to compile with XLA. Environments outside of TensorFlow run step by step in Python.
            run_eagerly: Whether to run without graphs, for debugging.

        Raises:
            ValueError: `loss` is not a `PolicyGradient`; several outer steps without a `clip_range`.
        """
        loss = PolicyGradient() if loss is None else loss
        if not isinstance(loss, PolicyGradient):
            raise ValueError(f"`loss` is the task loss, eq. 8: expected a `PolicyGradient`. Received: loss={loss!r}")
        check_counts(outer_epochs=outer_epochs, outer_batch_size=1 if outer_batch_size is None else outer_batch_size)
        if loss.clip_range is None and (outer_epochs > 1 or outer_batch_size is not None):
            raise ValueError(
                "With `outer_epochs` or `outer_batch_size` phi takes several steps from the same rollouts. Eq. 8 holds "
                "for the first alone: expected a `clip_range`, e.g. PolicyGradient(clip_range=0.2). Received: "
                f"outer_epochs={outer_epochs}, outer_batch_size={outer_batch_size}, clip_range=None"
            )
        shaping = {"extra_loss": extra_loss, "beta": beta, "gamma": gamma}
        super().compile(optimizer, loss, inner_optimizer, jit_compile=jit_compile, run_eagerly=run_eagerly, **shaping)
        self.outer_epochs: int = outer_epochs
        self.outer_batch_size: int | None = outer_batch_size
        self.sampler = self._make_sampler(compiled=self._compiled)
        self._take_steps = self._in_shards(self._learn_from)
        self._predict = self._in_shards(self.inner_loop.predict)
        self._meta_gradient = self._compile_meta_gradient(self.meta_gradient)
        self._score = self._compiled(self._task_loss)
        # The outer optimizer's own steps are no work for XLA.
        self._move_phi = self.differentiate if self.run_eagerly else tf.function(self.differentiate, autograph=False)
        # Keras's own loop calls the compiled parts, and environments outside of the graph.
        self.run_eagerly: bool = run_eagerly or not self.sampler.runs_in_graph

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, self._return_mean] if self.compiled else []

    @property
    def training_state(self) -> dict[str, Any]:
        sampling = [self.seeds.state.value, self._evaluation_seeds.state.value, self._samples]
        return {**super().training_state, "sampling": sampling}

    @property
    def samples(self) -> int:
        """Environment steps that meta-training has used."""
        return int(self._samples)

    def train_step(self, batch: Batch) -> dict[str, Any]:
        tasks = as_tasks(batch)
        learners = self.inner_loop.start(tasks["state"].shape[0])
        trajectory = self.collect(learners.parameters, tasks)
        for _ in range(self.inner_steps // self.unroll):
            ahead, support = learners, []
            for _ in range(self.unroll):
                ahead, mini_batches_of_step = self.learn(ahead, trajectory)
                support += mini_batches_of_step
                trajectory = self.collect(ahead.parameters, tasks)
            query = self.query(trajectory, ahead.parameters)
            # The same steps once more, as a function of phi.
            self._move_phi(learners, {"support": support, "query": query, "tasks": tasks})
            self._motion_watch.record(learners.parameters.trainable, ahead.parameters.trainable)
            learners = ahead
        self._return_mean.update_state(mean_returns(trajectory))
        return {**self.get_metrics_result(), "samples": tf.identity(self._samples)}

    def collect(self, parameters: Parameters, tasks: Batch) -> Trajectory:
        """Phase 1: rolls the policies out on their tasks, with noise, and counts the environment steps."""
        trajectory = self.sampler(parameters, tasks, self.sampler.noise(tasks, self.seeds))
        self._samples.assign_add(tf.cast(tf.reduce_sum(trajectory.mask), tf.int64))
        return trajectory

    def learn(self, learners: LearnerState, trajectory: Trajectory) -> tuple[LearnerState, list[Any]]:
        """Phase 2: takes a step with the learned loss for each mini-batch; returns the mini-batches, too."""
        batches = mini_batches(trajectory, self.loss_inputs, batch_size=self.batch_size, seeds=self.seeds)
        return self._take_steps(learners, batches), batches

    def differentiate(self, learners: LearnerState, batch: Batch) -> None:
        """Phase 3: moves phi `outer_epochs` times. `learners` are those before the steps; `batch`: see `extra_loss`."""
        num_tasks = batch["tasks"]["state"].shape[0]
        size = num_tasks if self.outer_batch_size is None else self.outer_batch_size
        if num_tasks % size:
            raise ValueError(
                f"`outer_batch_size` must divide the number of tasks, {num_tasks}. Received: outer_batch_size={size}"
            )
        if size == num_tasks and self.outer_epochs == 1:
            self.apply_meta_gradient(*self._meta_gradient(learners, batch))
            return
        order = tf.argsort(keras.random.uniform((self.outer_epochs, num_tasks), seed=self.seeds))
        chosen = tf.reshape(order, [-1, size])

        def body(i: tf.Tensor) -> tuple[tf.Tensor]:
            part = tf.nest.map_structure(lambda values: tf.gather(values, chosen[i]), (learners, batch))
            self.apply_meta_gradient(*self._meta_gradient(*part))
            return (i + 1,)

        tf.while_loop(lambda i: i < chosen.shape[0], body, (0,), maximum_iterations=chosen.shape[0])

    def meta_gradient(self, learners: LearnerState, batch: Batch) -> tuple[list[Any], tf.Tensor]:
        """Differentiates the task loss through the inner steps: the gradient for each variable of phi, the loss."""
        stacked = tf.nest.map_structure(lambda *values: tf.stack(values), *batch["support"])
        support = lambda _, i: tf.nest.map_structure(lambda values: values[i], stacked)
        score = lambda learners: self._task_loss(learners.parameters, batch)
        size, phi = len(batch["support"]), self.meta_loss.trainable_variables
        swept = self.inner_loop.differentiate(learners, support, score, num_steps=size, variables=phi)
        return swept.gradients, swept.loss

    def query(self, trajectory: Trajectory, parameters: Parameters) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns fresh rollouts as examples of the task loss: `(x, y, sample_weight)`, y as `PolicyGradient` takes it.

        W is multiplied by T: Keras takes the mean over examples, eq. 8 the sum over time.
        """
        weights = self.horizon * self.task_loss.weights(trajectory)[..., tf.newaxis]
        x, y, mask = learning_batch(trajectory, lambda trajectory: tf.concat([trajectory.actions, weights], -1))
        actions, weights = y[..., :-1], y[..., -1:]
        log_prob = self.distribution.log_prob(self._predict(parameters, x), actions)[..., tf.newaxis]
        return x, tf.concat([actions, log_prob, weights], -1), mask

    def action_excess(self, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """An `extra_loss` of Gaussian policies: `mean(max(|mu| - 1, 0)^2)` of each task, on the fresh rollouts.

        Where actions are limited to [-1, 1], policies with means far beyond act alike, and eq. 8 does not tell them the
        way back. Eq. 8 sums over time; a weight `gamma` of about the horizon makes up for that.
        """
        if not isinstance(self.distribution, GaussianActions):
            raise ValueError(f"`action_excess` is of Gaussian policies. Received: {self.distribution}. Leave it out.")
        x, _, sample_weight = batch["query"]
        mean = self.inner_loop.predict(parameters, x)[..., : self.action_size]
        excess = tf.reduce_mean(tf.square(tf.nn.relu(tf.abs(mean) - 1.0)), -1)
        return tf.reduce_sum(sample_weight * excess, 1) / tf.reduce_sum(sample_weight, 1)

    def test_step(self, batch: Batch) -> dict[str, Any]:
        tasks = as_tasks(batch)
        num_tasks, seeds = tasks["state"].shape[0], self._evaluation_seeds
        learners = self.inner_loop.start(num_tasks, self._evaluated_learner.draw(num_tasks))
        for _ in range(self.inner_steps):
            trajectory = self.sampler(learners.parameters, tasks, self.sampler.noise(tasks, seeds))
            batches = mini_batches(trajectory, self.loss_inputs, batch_size=self.batch_size, seeds=seeds)
            learners = self._take_steps(learners, batches)
        trajectory = self.sampler(learners.parameters, tasks, self.sampler.noise(tasks, seeds))
        scored = {"support": [], "query": self.query(trajectory, learners.parameters), "tasks": tasks}
        self._loss_mean.update_state(self._score(learners.parameters, scored))
        self._return_mean.update_state(mean_returns(trajectory))
        return self.get_test_result()

    def make_train_function(self, force: bool = False) -> None:
        made_before = self.train_function
        super().make_train_function(force)
        if (run := self.train_function) is made_before:
            return

        def train_function(iterator: Any) -> Any:
            start, before, logs = time.perf_counter(), self.samples, run(iterator)
            return {**logs, "samples_per_second": (self.samples - before) / (time.perf_counter() - start)}

        self.train_function = train_function

    def _make_sampler(self, **compiled: Any) -> Sampler:
        settings = {"horizon": self.horizon, "distribution": self.distribution}
        return Sampler(self.learner.predict, self.simulator, **settings, **compiled)

    def _learn_from(self, learners: LearnerState, batches: list[Any]) -> LearnerState:
        for batch in batches:
            learners = self.inner_loop.step(learners, lambda _, batch=batch: batch)
        return learners

    def _task_loss(self, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """Eq. 8 on the query of each task, shaped by eq. 9: `[N]`."""
        task_loss = lambda y_true, y_pred: self.task_loss(y_true, y_pred, self.distribution)
        losses = self.inner_loop.evaluate(task_loss, parameters, batch["query"])
        return self.shape_loss(losses, parameters, batch)
