"""Model-based meta-training: a loss for policies, learned through a differentiable model of the dynamics.

Shape letters: N tasks, B episodes of a task, T time, O observation, A action, G goal.
"""

from collections.abc import Callable

import tensorflow as tf

from ml3_tf.arguments import Batch, OptimizerLike
from ml3_tf.learner import Parameters
from ml3_tf.outer_loop import ExtraLoss
from ml3_tf.rl.policy_trainer import PolicyTrainer
from ml3_tf.rl.rollouts import Trajectory


class ModelBasedTrainer(PolicyTrainer):
    """Learns a loss that trains policies: moves phi so that their rollouts in a model cost little.

    Algorithm 3 of ML3 for a given model. An inner step rolls each policy out and descends the learned loss of the
    trajectory. The task loss is a cost of the new policy's rollout, differentiated through cost, dynamics and policy::

        tau       = rollout of pi_theta in the model
        theta_new = theta - alpha d/dtheta E[M_phi(tau, g)]
        phi_new   = phi - eta d/dphi L_T(tau_new, g)             tau_new: rollout of pi_theta_new in the model

    Batches are `{"support": (initial_states, goals), "query": (initial_states, goals)}`, each `[N, B, ...]`: where the
    rollouts that policies learn from start, and those that are scored. Arguments and support are those of
    `PolicyTrainer`.

    Example:

    >>> import keras, ml3_tf
    >>> from ml3_tf.rl import MLPPolicy, observation_and_goal
    >>> loss_inputs = ml3_tf.LossInputs(observation_and_goal, {"action": 2, "observation": 2, "goal": 2})
    >>> trainer = ModelBasedTrainer(
    ...     lambda: MLPPolicy(2, 2, hidden_units=(8,)),
    ...     ml3_tf.MetaLoss.mlp((10,), features=loss_inputs),
    ...     dynamics=lambda states, actions: states + 0.1 * actions,
    ...     horizon=10,
    ...     loss_inputs=loss_inputs,
    ... )
    >>> final_distance = lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1)
    >>> trainer.compile(keras.optimizers.Adam(1e-3), final_distance)
    >>> starts_and_goals = tf.zeros((4, 1, 2)), tf.ones((4, 1, 2))
    >>> tasks = tf.data.Dataset.from_tensors({"support": starts_and_goals, "query": starts_and_goals})
    >>> history = trainer.fit(tasks, verbose=0)
    """

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        cost: Callable[[Trajectory], tf.Tensor] | None = None,
        inner_optimizer: OptimizerLike = "sgd",
        *,
        extra_loss: ExtraLoss | None = None,
        beta: float = 1.0,
        gamma: float = 1.0,
        jit_compile: bool = True,
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
    ) -> None:
        """Configures meta-training; the other arguments are those of `MetaTrainer.compile`.

        Args:
            optimizer: Outer optimizer, moves the meta-loss.
            cost: The task loss: function of the query `Trajectory` that returns the cost of each episode, `[N, B]`.
            inner_optimizer: Inner optimizer, moves the policies.
            extra_loss: Optional function `(parameters, batch) -> [N]`.
            beta: Weight of `cost`.
            gamma: Weight of `extra_loss`.
            jit_compile: Whether to compile the meta-gradient with XLA.
            steps_per_execution: Number of steps in one compiled call.
            run_eagerly: Whether to run without graphs, for debugging.

        Raises:
            ValueError: `cost` is not a function.
        """
        if not callable(cost):
            raise ValueError(
                "`cost` must be a function of a `Trajectory` that returns the cost of each episode, [N, B]. Received: "
                f"cost={cost!r}"
            )
        super().compile(
            optimizer,
            inner_optimizer=inner_optimizer,
            extra_loss=extra_loss,
            beta=beta,
            gamma=gamma,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        self.cost: Callable[[Trajectory], tf.Tensor] = cost

    def compute_task_loss(self, parameters: Parameters, batch: Batch) -> tf.Tensor:
        costs = self.cost(self.rollout(parameters, *batch["query"]))
        expected = tuple(batch["query"][0].shape[:2])
        if tuple(costs.shape) != expected:
            raise ValueError(
                f"`cost` must return one value for each episode, shape {expected}. Received: shape {tuple(costs.shape)}"
            )
        return tf.reduce_mean(costs, 1)
