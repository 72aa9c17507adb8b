"""Meta-training a loss is `fit`."""

import math
import warnings

import keras
import tensorflow as tf

from ml3_tf.inner_loop import InnerLoop, loss_of_each_task, number_of_tasks
from ml3_tf.learner import Learner


class MetaTrainer(keras.Model):
    """Learns a loss: moves phi so that learners trained with `M_phi` do well on a task loss.

    Algorithm 1 of ML3, for `N` tasks at once. Each step of `fit` takes one batch of tasks from the dataset, draws fresh
    learner parameters for each task, and trains them for `inner_steps` steps with the learned loss. After every
    `unroll` of these, the task loss on the query points is differentiated through them and moves the learned loss::

        theta_new = h(theta, d/dtheta E[M_phi(y, f_theta(x))])      inner_optimizer, `unroll` times   (eq. 6)
        phi_new   = phi - eta d/dphi L_T(y, f_theta_new(x))         optimizer                          (eq. 5)

    `unroll=1` is the paper's "after each inner gradient step"; `unroll=inner_steps`, the default, is back-propagation
    through the whole chain. Clip the outer gradient with the optimizer's own `clipnorm` or `global_clipnorm`.

    **Shaping.** What only meta-training knows may shape the loss that it leaves behind: with an `extra_loss`, the task
    loss is `beta L_T + gamma L_extra` (eq. 9). `L_extra` sees the trained learners' parameters and everything that a
    task carries, e.g. a true frequency or inertia matrix as a further, named part of its data. The learned loss, which
    sees predictions and targets alone, needs none of it.

    To learn a loss for something other than regression or classification, override `support` and `query`: they alone
    know what a task is. Conditions and loops over tensors in them and in losses are `tf.where`, `tf.cond` and
    `tf.while_loop`: as in Keras, AutoGraph converts no Python code, which would take longer than XLA's compilation.

    Args:
        learner: Function without arguments that builds the Keras model which the loss shall train, or such a model.
            It is rebuilt, so that each task gets parameters drawn by the learner's own initializers.
        meta_loss: The `MetaLoss` to be learned.
        inner_steps: Number of steps that a learner lives for.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. Default: all.
        seed: Optional integer that determines the learners' fresh parameters.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: A learner without weights, or step counts that do not fit.

    Example:

    >>> import keras, ml3_tf
    >>> trainer = ml3_tf.MetaTrainer(
    ...     learner=lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]),
    ...     meta_loss=ml3_tf.MetaLoss.mlp(),
    ... )
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse", inner_optimizer=keras.optimizers.SGD(1e-3))
    >>> history = trainer.fit(ml3_tf.sine_tasks(), steps_per_epoch=2, verbose=0)
    >>> sorted(history.history)
    ['loss', 'meta_gradient_norm']
    """

    def __init__(self, learner, meta_loss, inner_steps=1, unroll=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        unroll = inner_steps if unroll is None else unroll
        if inner_steps < 1 or unroll < 1 or inner_steps % unroll:
            raise ValueError(
                "Expected `inner_steps` >= 1 and an `unroll` that divides it. "
                f"Received: inner_steps={inner_steps}, unroll={unroll}"
            )
        self.learner = Learner(learner, seed)
        self._evaluated_learner = Learner(learner, seed)  # draws from a stream of its own, so that training is unmoved
        self.meta_loss = meta_loss
        self.inner_steps = inner_steps
        self.unroll = unroll
        # Phi is what this model trains. The learner's template is no layer of it, so that its weights stay out.
        self._phi_layers = meta_loss.layers
        self._query_metrics = []
        self._non_finite = tf.Variable(tf.zeros(len(meta_loss.trainable_variables), tf.bool), trainable=False)
        self.built = True

    def compile(
        self,
        optimizer="adam",
        loss="mse",
        inner_optimizer="sgd",
        metrics=None,
        extra_loss=None,
        beta=1.0,
        gamma=1.0,
        jit_compile=True,
        steps_per_execution=1,
        run_eagerly=False,
    ):
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss. Its `global_clipnorm` clips the outer gradient.
            loss: Task loss `L_T`, needed only while the loss is learned.
            inner_optimizer: Inner optimizer, moves the learners, differentiated through; see `InnerOptimizer`.
            metrics: Further metrics of the learners' predictions on the query points, after training.
            extra_loss: Optional function `(parameters, data) -> [N]`, `L_extra` of each task: `parameters` are the
                `Parameters` of the trained learners, `data` is the batch of tasks.
            beta: Weight of `loss`. 0 leaves the extra loss alone.
            gamma: Weight of `extra_loss`.
            jit_compile: Whether to compile the meta-gradient with XLA. It takes some seconds and pays from a few
                hundred steps.
            steps_per_execution: Number of steps in one compiled call. 100 keeps Python out of the way.
            run_eagerly: Whether to run without graphs, for debugging.

        Raises:
            ValueError: An inner optimizer that cannot be differentiated; weights that leave no task loss.
        """
        super().compile(
            optimizer=optimizer, jit_compile=False, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly
        )
        if isinstance(keras.optimizers.get(inner_optimizer), keras.optimizers.Lion):
            raise ValueError(
                "Lion cannot be the `inner_optimizer` of meta-training: it steps by the sign of the gradient, whose "
                "derivative is zero, so nothing can be learned through it. Use SGD, Adam or another smooth optimizer."
            )
        if not (0 <= beta < math.inf and 0 <= gamma < math.inf and beta + (gamma if extra_loss else 0) > 0):
            raise ValueError(
                "The task loss is `beta * loss + gamma * extra_loss`: expected finite weights that are not negative, "
                f"and one of them positive. Received: beta={beta}, gamma={gamma}, extra_loss={extra_loss}"
            )
        self.inner_loop = InnerLoop(self.learner, self.meta_loss, inner_optimizer)
        self.task_loss = keras.losses.get(loss)
        self.extra_loss, self.beta, self.gamma = extra_loss, beta, gamma
        self.optimizer.build(self.meta_loss.trainable_variables)
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._norm_mean = keras.metrics.Mean(name="meta_gradient_norm")
        self._query_metrics = [_get_metric(metric) for metric in metrics or []]

        def compiled(function):
            return function if run_eagerly else tf.function(function, autograph=False, jit_compile=jit_compile)

        self._compiled = compiled
        self._meta_gradient = compiled(self.meta_gradient)
        self._adapt_and_score = compiled(self.adapt_and_score)

    def fit(self, tasks, **arguments):
        """Meta-trains the loss.

        Args:
            tasks: `tf.data.Dataset` of `{"support": (x, y), "query": (x, y), ...}`, each array `[N, B, ...]`.
            **arguments: As in `keras.Model.fit`: `epochs`, `steps_per_epoch`, `validation_data`, `callbacks`, ...

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: `tasks` is no dataset, or its elements are no tasks; the task loss does not depend on phi.
            FloatingPointError: A meta-gradient is not finite. The loss keeps its last finite weights.
        """
        if not isinstance(tasks, tf.data.Dataset):
            raise ValueError(f"`fit` takes a `tf.data.Dataset` of tasks. Received: {type(tasks).__name__}")
        return super().fit(tasks, **{"shuffle": False, **arguments})

    @property
    def metrics(self):
        return [self._loss_mean, self._norm_mean, *self._query_metrics] if self.compiled else []

    def support(self, parameters, data):
        """What the learners train on: `(x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`."""
        return data["support"]

    def query(self, parameters, data):
        """What the task loss scores: `(y_true, y_pred, sample_weight or None)`, each `[N, B, ...]`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data["query"])
        return y, self.inner_loop.predict(parameters, x), sample_weight

    def adapt(self, tasks, data, steps):
        """Trains the learners for some steps with the learned loss: the new `TaskState`."""
        return self.inner_loop.run(tasks, lambda parameters: self.support(parameters, data), steps)

    def after_last_step(self, parameters, data):
        """Called at the end of each step of `fit`, before the learners with these `Parameters` are gone."""

    def adapt_and_score(self, tasks, data, steps):
        """Trains the learners for some steps with the learned loss, and scores them with the task loss.

        Args:
            tasks: `TaskState` of N tasks.
            data: The tasks, see `ml3_tf.sine_tasks`.
            steps: Number of inner steps.

        Returns:
            The task loss (a scalar, the mean over tasks), the new `TaskState`, and what `query` gave.
        """
        tasks = self.adapt(tasks, data, steps)
        query = self.query(tasks.parameters, data)
        losses = self.beta * loss_of_each_task(self.task_loss, *query)
        if self.extra_loss is not None:
            losses += self.gamma * self._extra_losses(tasks.parameters, data, losses)
        return tf.reduce_mean(losses), tasks, query

    def meta_gradient(self, tasks, data):
        """Differentiates the task loss through `unroll` inner steps, eq. 5 of ML3.

        Args:
            tasks: `TaskState` of N tasks.
            data: The tasks.

        Returns:
            The gradient for each variable of the meta-loss, the task loss, the new `TaskState` and what `query` gave.

        Raises:
            ValueError: The task loss does not depend on the meta-loss at all.
        """
        phi = self.meta_loss.trainable_variables
        with tf.GradientTape() as tape:
            loss, tasks, query = self.adapt_and_score(tasks, data, self.unroll)
        gradients = tape.gradient(loss, phi)
        missing = [variable.path for variable, gradient in zip(phi, gradients, strict=True) if gradient is None]
        if len(missing) == len(phi):
            raise ValueError(
                f"There is no meta-gradient: the task loss does not depend on any variable of '{self.meta_loss.name}' "
                f"({', '.join(missing)}). Expected a meta-loss whose gradient for y_pred depends on its weights, and a "
                "`query` that depends on the learner's parameters."
            )
        if missing:
            warnings.warn(
                f"The meta-gradient of {', '.join(missing)} is missing: no learner's step depends on it. A bias of a "
                "linear output only shifts the loss; drop it with use_bias=False. Anything else is cut off from "
                "y_pred.",
                stacklevel=2,
            )
        gradients = [tf.zeros(v.shape, v.dtype) if g is None else g for v, g in zip(phi, gradients, strict=True)]
        return gradients, loss, tasks, query

    def outer_step(self, tasks, data):
        """Trains the learners for `unroll` steps and moves phi once: the new `TaskState`."""
        gradients, loss, tasks, query = self._meta_gradient(tasks, data)
        self._apply_if_finite(gradients)
        self._loss_mean.update_state(loss)
        self._norm_mean.update_state(tf.linalg.global_norm(gradients))
        self._update_metrics(*query)
        return tasks

    def train_step(self, data):
        # Initializers draw outside of XLA, where they are fast.
        tasks = self.inner_loop.start(number_of_tasks(data))
        outer_steps = self.inner_steps // self.unroll
        if outer_steps == 1:
            tasks = self.outer_step(tasks, data)
        else:
            condition, body = lambda i, _: i < outer_steps, lambda i, tasks: (i + 1, self.outer_step(tasks, data))
            _, tasks = tf.while_loop(condition, body, (0, tasks))
        self.after_last_step(tasks.parameters, data)
        return self.get_metrics_result()

    def test_step(self, data):
        num_tasks = number_of_tasks(data)
        tasks = self.inner_loop.start(num_tasks, self._evaluated_learner.draw(num_tasks))
        loss, _, query = self._adapt_and_score(tasks, data, self.inner_steps)
        self._loss_mean.update_state(loss)
        self._update_metrics(*query)
        return {metric.name: metric.result() for metric in self.metrics if metric is not self._norm_mean}

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        run = self.train_function

        def train_function(iterator):
            logs = run(iterator)
            self._raise_if_non_finite()
            return logs

        self.train_function = train_function

    def _extra_losses(self, parameters, data, losses):
        """`L_extra` of each task, eq. 9."""
        extra = tf.convert_to_tensor(self.extra_loss(parameters, data))
        if extra.shape != losses.shape:
            raise ValueError(
                f"`extra_loss` returns one value for each task, shape {tuple(losses.shape)}. Received: shape "
                f"{tuple(extra.shape)}"
            )
        return tf.cast(extra, losses.dtype)

    def _apply_if_finite(self, gradients):
        """Moves phi, unless a gradient is not finite: a bad step is reported and never taken."""
        squares = tf.stack([tf.cast(tf.reduce_sum(tf.square(gradient)), tf.float32) for gradient in gradients])
        # Also gradients so large that the square of their global norm, which clipping divides by, overflows.
        non_finite = tf.logical_not(tf.math.is_finite(len(gradients) * squares))
        self._non_finite.assign(tf.logical_or(self._non_finite, non_finite))

        def apply():
            self.optimizer.apply(gradients, self.meta_loss.trainable_variables)
            return True

        tf.cond(tf.reduce_any(self._non_finite), lambda: False, apply)

    def _raise_if_non_finite(self):
        non_finite = self._non_finite.numpy()
        if not non_finite.any():
            return
        self._non_finite.assign(tf.zeros_like(self._non_finite))
        names = [v.path for v, bad in zip(self.meta_loss.trainable_variables, non_finite, strict=True) if bad]
        raise FloatingPointError(
            f"The meta-gradient of {', '.join(names)} is not finite after {int(self.optimizer.iterations)} outer "
            "steps. The bad step was not taken: the meta-loss still holds its last finite weights. Usually the "
            "learners diverged: lower the inner learning rate or `unroll`, or clip the inner gradient (`clipnorm`); "
            "otherwise look for NaN in the tasks."
        )

    def _update_metrics(self, *query):
        for metric in self._query_metrics:
            metric.update_state(*(None if values is None else _merge_tasks(values) for values in query))


def _merge_tasks(values):
    """`[N, B, ...] -> [N * B, ...]`."""
    return tf.reshape(values, [-1, *values.shape[2:]])


def _get_metric(metric):
    if metric in ("accuracy", "acc"):
        raise ValueError(
            f"Which accuracy? Received: metrics=[{metric!r}]. Expected 'binary_accuracy', 'categorical_accuracy' or "
            "'sparse_categorical_accuracy'."
        )
    return keras.metrics.get(metric)
