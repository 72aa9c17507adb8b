"""Model-free meta-training: a loss for policies, learned from nothing but experience.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action.
"""

import time

import keras
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.meta_trainer import MetaTrainer
from ml3_tf.rl.loss_inputs import learning_batch, mini_batches, state_and_action
from ml3_tf.rl.meta_testing import mean_returns
from ml3_tf.rl.policy_gradient import PolicyGradient, gaussian_log_prob
from ml3_tf.rl.simulators import Sampler, policy_action_size, as_tasks


class ModelFreeTrainer(MetaTrainer):
    """Learns a loss that trains policies, from experience alone: neither a model nor a differentiable reward.

    Algorithm 4 of ML3. An inner step descends the learned loss of what a stochastic policy lived through; the task
    loss is the policy gradient's surrogate on fresh rollouts of the new policy::

        tau       = rollouts of pi_theta
        theta_new = theta - alpha d/dtheta E[M_phi(tau, mean, std)]
        tau_new   = rollouts of pi_theta_new
        phi_new   = phi - eta d/dphi -E[sum_t W_t log pi_theta_new(a_t | s_t)]         (eq. 8), on tau_new

    The new rollouts are also what the next inner step learns from: each is used twice. Where simulation is what costs,
    `outer_epochs` lets phi take more steps from each, as PPO does, with a `PolicyGradient(clip_range=...)` that holds
    it near the policies that acted. Rollouts are data: they happen outside of what is differentiated, and no gradient
    flows through actions, rewards or states.

    The learned loss sees what the policy returns, mean and standard deviation (`y_pred`), and what `loss_inputs` makes
    of the trajectory (`y_true`), so that at meta-test `policy.compile(loss=meta_loss)` does the rest.

    `fit` takes tasks `{"state": [N, E, S], "goal": [N, E, G]}`: where the episodes of each task start, and their
    goals. It reports the `loss`, the `return` of policies after their last inner step (mean sum of rewards of an
    episode), the environment steps so far (`samples`) and in a second.

    Args:
        policy: Function without arguments that builds the Keras model of a policy with `[B, O] -> [B, 2A]`, mean and
            standard deviation, or one: `GaussianPolicy(..., std=0.5)`.
        meta_loss: The `MetaLoss` to be learned.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments that take their tasks, see
            `Sampler`.
        horizon: T, the number of steps of an episode.
        loss_inputs: Function of a `Trajectory` that returns what the loss sees beside the policy's outputs,
            `[N, E, T, width]`; see `with_reward_changes` and `state_action_and_return` for reward-aware forms.
        inner_steps: Number of times that a policy gathers experience and learns from it, before a fresh one is drawn.
        unroll: As in `MetaTrainer`. 1 is the default here: longer chains multiply the noise of eq. 8.
        batch_size: Time steps of a task in one step of the inner optimizer, see `mini_batches`. `None`: all.
        outer_epochs: Number of passes of the outer optimizer over the tasks, with the same rollouts.
        outer_batch_size: Number of tasks in one step of the outer optimizer; divides their number. `None`: all.
        seed: Optional integer that determines policies, noise and mini-batches.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: A deterministic policy, a simulator or a horizon that is none, or step counts that do not fit; in
            `compile`, several outer steps without a `clip_range`; in `fit`, tasks or environments that do not fit.
        FloatingPointError: In `fit`: an environment diverged. The loss keeps its last finite weights.

    Example:

    >>> import ml3_tf
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> from ml3_tf.rl.simulators import Simulator
    >>> trainer = ModelFreeTrainer(
    ...     policy=lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5),
    ...     meta_loss=ml3_tf.MetaLoss.mlp((10,), features={"mean_and_std": 4, "state": 2, "action": 2}),
    ...     simulator=Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1)),
    ...     horizon=10,
    ... )
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss=PolicyGradient(discount=0.9))
    >>> tasks = tf.data.Dataset.from_tensors({"state": tf.zeros((4, 2, 2)), "goal": tf.ones((4, 2, 2))})
    >>> history = trainer.fit(tasks, verbose=0)
    >>> history.history["samples"]  # two rollouts of 4 x 2 episodes
    [160.0]
    """

    def __init__(
        self,
        policy,
        meta_loss,
        simulator,
        horizon,
        loss_inputs=state_and_action,
        inner_steps=1,
        unroll=1,
        batch_size=None,
        outer_epochs=1,
        outer_batch_size=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(policy, meta_loss, inner_steps, unroll, seed, **kwargs)
        self.simulator, self.horizon = simulator, horizon
        self.loss_inputs, self.batch_size = loss_inputs, batch_size
        check_counts(outer_epochs=outer_epochs)
        if outer_batch_size is not None:
            check_counts(outer_batch_size=outer_batch_size)
        self.outer_epochs, self.outer_batch_size = outer_epochs, outer_batch_size
        self.action_size = policy_action_size(self.learner.model)
        self.seeds, self._evaluation_seeds = keras.random.SeedGenerator(seed), keras.random.SeedGenerator(seed)
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._return_mean = keras.metrics.Mean(name="return")
        self._make_sampler()

    def compile(self, optimizer="adam", loss=None, inner_optimizer="sgd", **kwargs):
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss.
            loss: `PolicyGradient`, eq. 8 with its options; `None`: with its defaults.
            inner_optimizer: Inner optimizer, moves the policies.
            **kwargs: Further arguments of `MetaTrainer.compile`. An `extra_loss`, e.g. `action_excess`, finds the
                fresh rollouts in `data["query"]`, as `(x, y, sample_weight)`. With environments outside of TensorFlow
                the rollouts run step by step in Python, and everything else is compiled.

        Raises:
            ValueError: `loss` is no `PolicyGradient`.
        """
        loss = PolicyGradient() if loss is None else loss
        if not isinstance(loss, PolicyGradient):
            raise ValueError(f"`loss` is the task loss, eq. 8: expected a `PolicyGradient`. Received: loss={loss!r}")
        if loss.clip_range is None and (self.outer_epochs > 1 or self.outer_batch_size is not None):
            raise ValueError(
                "With `outer_epochs` or `outer_batch_size` phi takes several steps from the same rollouts. Eq. 8 holds "
                "for the first alone: expected a `clip_range`, e.g. PolicyGradient(clip_range=0.2). Received: "
                f"outer_epochs={self.outer_epochs}, outer_batch_size={self.outer_batch_size}, clip_range=None"
            )
        super().compile(optimizer, loss, inner_optimizer, **kwargs)
        self._make_sampler(compiled=self._compiled)
        self._learn = self._compiled(self._take_steps)
        self._predict = self._compiled(self.inner_loop.predict)
        # The outer optimizer's own steps are no work for XLA.
        self._outer_steps = self.outer_steps if self.run_eagerly else tf.function(self.outer_steps, autograph=False)
        if not self.sampler.runs_in_graph:
            self.run_eagerly = True  # Keras's own loop, which calls the compiled parts

    @property
    def metrics(self):
        return [*super().metrics, self._return_mean] if self.compiled else []

    @property
    def samples(self):
        """Environment steps that meta-training has used."""
        return int(self._samples)

    def adapt(self, tasks, data, steps):
        return self._take_steps(tasks, data["support"])

    def action_excess(self, parameters, data):
        """An `extra_loss`: `mean(max(|mu| - 1, 0)^2)` of each task, on the fresh rollouts.

        Where actions are limited to [-1, 1], policies with a mean far beyond all act alike, so nothing tells them the
        way back: eq. 8 alone does not see what is lost there. Eq. 8 sums over time; a weight `gamma` of about the
        horizon makes up for that.

        Args:
            parameters: `Parameters` of the trained policies.
            data: What `extra_loss` is given.

        Returns:
            `[N]`.
        """
        x, _, sample_weight = data["query"]
        mean = self.inner_loop.predict(parameters, x)[..., : self.action_size]
        excess = tf.reduce_mean(tf.square(tf.nn.relu(tf.abs(mean) - 1.0)), -1)
        return tf.reduce_sum(sample_weight * excess, 1) / tf.reduce_sum(sample_weight, 1)

    def train_step(self, data):
        data = as_tasks(data)
        tasks = self.inner_loop.start(data["state"].shape[0])
        trajectory = self._explore(tasks.parameters, data)
        for _ in range(self.inner_steps // self.unroll):
            ahead, support = tasks, []
            for _ in range(self.unroll):
                batches = mini_batches(trajectory, self.loss_inputs, self.batch_size, self.seeds)
                ahead, support = self._learn(ahead, batches), support + batches
                trajectory = self._explore(ahead.parameters, data)
            query = self.scored(trajectory, ahead.parameters)
            # The same steps once more, as a function of phi.
            self._outer_steps(tasks, {"support": support, "query": query, "tasks": data})
            tasks = ahead
        self._return_mean.update_state(mean_returns(trajectory))
        return {**self.get_metrics_result(), "samples": tf.identity(self._samples)}

    def test_step(self, data):
        data = as_tasks(data)
        num_tasks, seeds = data["state"].shape[0], self._evaluation_seeds
        tasks = self.inner_loop.start(num_tasks, self._evaluated_learner.draw(num_tasks))
        for _ in range(self.inner_steps):
            trajectory = self.sampler(tasks.parameters, data, self.sampler.noise(data, seeds))
            tasks = self._learn(tasks, mini_batches(trajectory, self.loss_inputs, self.batch_size, seeds))
        trajectory = self.sampler(tasks.parameters, data, self.sampler.noise(data, seeds))
        # What is left to do is to score: no experience to learn from.
        data = {"support": [], "query": self.scored(trajectory, tasks.parameters)}
        loss, _, query = self._adapt_and_score(tasks, data, 0)
        self._loss_mean.update_state(loss)
        self._return_mean.update_state(mean_returns(trajectory))
        self._update_metrics(*query)
        return {metric.name: metric.result() for metric in self.metrics if metric is not self._norm_mean}

    def outer_steps(self, tasks, data):
        """Moves phi `outer_epochs` times for each task, by the experience of policies that have lived till `tasks`."""
        num_tasks = data["tasks"]["state"].shape[0]
        size = num_tasks if self.outer_batch_size is None else self.outer_batch_size
        if num_tasks % size:
            raise ValueError(
                f"`outer_batch_size` must divide the number of tasks, {num_tasks}. Received: outer_batch_size={size}"
            )
        if size == num_tasks and self.outer_epochs == 1:
            return self.outer_step(tasks, data)
        order = tf.argsort(keras.random.uniform((self.outer_epochs, num_tasks), seed=self.seeds))
        batches = tf.reshape(order, [-1, size])

        def body(i):
            chosen = tf.nest.map_structure(lambda values: tf.gather(values, batches[i]), (tasks, data))
            self.outer_step(*chosen)
            return (i + 1,)

        return tf.while_loop(lambda i: i < batches.shape[0], body, (0,), maximum_iterations=batches.shape[0])

    def scored(self, trajectory, parameters):
        """The query of the fresh rollouts of policies: `(x, y, sample_weight)`, y being what `PolicyGradient` takes.

        W is multiplied by T, which makes the sum over time, which eq. 8 takes, of the mean over examples, which Keras
        takes.
        """
        weights = self.horizon * self.task_loss.weights(trajectory)[..., tf.newaxis]
        x, y, mask = learning_batch(trajectory, lambda trajectory: tf.concat([trajectory.actions, weights], -1))
        actions, weights = y[..., :-1], y[..., -1:]
        log_prob = gaussian_log_prob(self._predict(parameters, x), actions)[..., tf.newaxis]
        return x, tf.concat([actions, log_prob, weights], -1), mask

    def make_train_function(self, force=False):
        is_made = self.train_function is not None and not force
        super().make_train_function(force)
        if is_made:
            return
        run = self.train_function

        def train_function(iterator):
            start, before = time.perf_counter(), self.samples
            logs = run(iterator)
            return {**logs, "samples_per_second": (self.samples - before) / (time.perf_counter() - start)}

        self.train_function = train_function

    def _make_sampler(self, **arguments):
        predict = lambda parameters, x: self.learner.apply(parameters, x, training=False)[0]
        self.sampler = Sampler(predict, self.simulator, self.horizon, self.action_size, **arguments)

    def _explore(self, parameters, tasks):
        trajectory = self.sampler(parameters, tasks, self.sampler.noise(tasks, self.seeds))
        self._samples.assign_add(tf.cast(tf.reduce_sum(trajectory.mask), tf.int64))
        return trajectory

    def _take_steps(self, tasks, batches):
        for batch in batches:
            tasks = self.inner_loop.step(tasks, lambda _, batch=batch: batch)
        return tasks
