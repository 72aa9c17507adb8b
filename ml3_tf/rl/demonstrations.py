"""Meta-training from demonstrations: a loss that teaches policies to act as an expert does.

Shape letters: N tasks, B episodes of a task, E demonstrated examples, O observation, A action, G goal.
"""

from ml3_tf.rl.policy_trainer import PolicyTrainer


class DemonstrationTrainer(PolicyTrainer):
    """Learns a loss that trains policies: moves phi so that they act as an expert does.

    An inner step rolls each policy out towards its goal, in a model, and descends the learned loss of the trajectory.
    The task loss is that of behavior cloning, on the states that the expert visited::

        tau       = rollout of pi_theta in the model
        theta_new = theta - alpha d/dtheta E[M_phi(tau, g)]
        phi_new   = phi - eta d/dphi E[ ||pi_theta_new(s_expert) - a_expert||^2 ]

    Only meta-training needs the expert. The learned loss sees the policy's own rollouts and a goal, and brings policies
    to goals that nobody demonstrated (Algorithm 5, `meta_test_in_env`).

    Batches are `{"support": (initial_states, goals), "query": (observations, actions)}`: `[N, B, O]` and `[N, B, G]`,
    where the rollouts start that policies learn from; `[N, E, O]` and `[N, E, A]`, how the expert acted on the way to
    that goal. Arguments and support are those of `PolicyTrainer`. `compile` is that of `MetaTrainer`: its default, the
    mean squared error, is the paper's sum over time, up to a constant.

    Example:

    >>> import keras, ml3_tf
    >>> import tensorflow as tf
    >>> from ml3_tf.rl import MLPPolicy, observation_and_goal
    >>> loss_inputs = ml3_tf.LossInputs(observation_and_goal, {"action": 2, "observation": 2, "goal": 2})
    >>> trainer = DemonstrationTrainer(
    ...     lambda: MLPPolicy(2, 2, hidden_units=(8,)),
    ...     ml3_tf.MetaLoss.mlp((10,), features=loss_inputs),
    ...     dynamics=lambda states, actions: states + 0.1 * actions,
    ...     horizon=10,
    ...     loss_inputs=loss_inputs,
    ... )
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3))
    >>> demonstration = tf.random.uniform((4, 10, 2)), tf.ones((4, 10, 2))
    >>> tasks = tf.data.Dataset.from_tensors(
    ...     {"support": (tf.zeros((4, 1, 2)), tf.ones((4, 1, 2))), "query": demonstration}
    ... )
    >>> history = trainer.fit(tasks, verbose=0)

    Source: ML3, section 4.2, "expert demonstrations".
    """
