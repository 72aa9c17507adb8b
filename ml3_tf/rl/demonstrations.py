"""Meta-training from demonstrations: a loss that brings policies to do what an expert would.

Shape letters: N tasks, B episodes of a task, E demonstrated examples, S state, A action, G goal.
"""

from ml3_tf.meta_trainer import MetaTrainer
from ml3_tf.rl.model_based import ModelBasedTrainer


class DemonstrationTrainer(ModelBasedTrainer):
    """Learns a loss that trains policies: moves phi so that they act as an expert does.

    An inner step is that of `ModelBasedTrainer`: each policy is rolled out towards its goal and descends the learned
    loss of what happened. The task loss is that of behavior cloning, on states that the expert visited::

        tau       = rollout of pi_theta in the model
        theta_new = theta - alpha d/dtheta E[M_phi(tau, g)]
        phi_new   = phi - eta d/dphi E[ ||pi_theta_new(s_expert) - a_expert||^2 ]

    So the expert is needed while the loss is learned and never again: what is left behind sees the policy's own
    rollouts and a goal, and brings policies to goals that nobody demonstrated (Algorithm 5, `meta_test_in_env`).

    Tasks are `{"support": (initial_states, goals), "query": (states, actions)}`: `[N, B, S]` and `[N, B, G]`, where the
    rollouts start that policies learn from; `[N, E, S]` and `[N, E, A]`, what the expert did on the way to that goal.

    Args:
        policy: As in `ModelBasedTrainer`, as are all the others.

    Example:

    >>> import keras, ml3_tf
    >>> import tensorflow as tf
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> trainer = DemonstrationTrainer(
    ...     policy=lambda: GaussianPolicy(2, 2, hidden_units=(8,)),
    ...     meta_loss=ml3_tf.MetaLoss.mlp((10,), features={"action": 2, "state": 2, "goal": 2}),
    ...     dynamics=lambda states, actions: states + 0.1 * actions,
    ...     horizon=10,
    ... )
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> demonstration = tf.random.uniform((4, 10, 2)), tf.ones((4, 10, 2))
    >>> tasks = tf.data.Dataset.from_tensors(
    ...     {"support": (tf.zeros((4, 1, 2)), tf.ones((4, 1, 2))), "query": demonstration}
    ... )
    >>> history = trainer.fit(tasks, verbose=0)

    Source: ML3, section 4.2, "expert demonstrations".
    """

    def compile(self, optimizer="adam", loss="mse", inner_optimizer="sgd", **kwargs):
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss.
            loss: Task loss: compares the expert's actions with the policy's, as any Keras loss. The mean squared error
                is that of the paper, a sum over time, up to a constant.
            inner_optimizer: Inner optimizer, moves the policies.
            **kwargs: Further arguments of `MetaTrainer.compile`.
        """
        MetaTrainer.compile(self, optimizer, loss, inner_optimizer, **kwargs)

    def query(self, parameters, data):
        return MetaTrainer.query(self, parameters, data)
