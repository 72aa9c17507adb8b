"""The base class of the trainers that roll policies out in a model of the dynamics.

Shape letters: N tasks, B episodes of a task, T time, O observation, A action, G goal.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, LossInputs, ModelLike, check_counts
from ml3_tf.inner_loop import LearnerState
from ml3_tf.learner import Parameters
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.meta_trainer import MetaTrainer
from ml3_tf.outer_loop import Kept
from ml3_tf.rl.action_distributions import check_deterministic
from ml3_tf.rl.loss_inputs import learning_batch
from ml3_tf.rl.rollouts import Trajectory, rollout_model


class PolicyTrainer(MetaTrainer):
    """Trains policies with a learned loss on their rollouts in a model: the base class of two trainers.

    The learned loss sees, for each time step, the action of the policy (`y_pred`) and `loss_inputs` of the trajectory
    (`y_true`). No inner gradient flows through how the observations came about: they are data, as if an environment had
    made them. So meta-training takes the same steps as `policy.compile(loss=meta_loss)` takes with observations from
    anywhere, without a model (Algorithm 5).

    The support of a batch is `(initial_states, goals)`, `[N, B, O]` and `[N, B, G]`.

    Args:
        policy: Function without arguments that builds the Keras model of a policy, `[B, O] -> [B, A]`, or one.
        meta_loss: The `MetaLoss` to be learned.
        dynamics: Differentiable function of states `[N, B, O]` and actions `[N, B, A]`, returning the next states. It
            may hold variables, and they may change between calls of `fit`.
        horizon: T, the number of steps of a rollout.
        loss_inputs: `LossInputs`, what the loss sees beside each action.
        inner_steps: Number of steps that a step of `fit` trains policies for: without `lives`, their whole life.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. `None`: all.
        lives: Policies live on from one step of `fit` to the next, until they have taken so many steps; see
            `MetaTrainer`. A loss that saw long lives keeps policies where it brought them.
        seed: Optional integer that determines the fresh policies.
        name: Optional name.

    Raises:
        ValueError: A horizon below 1, step counts that do not divide each other, `loss_inputs` of other widths than
            those of the loss, or a stochastic policy: no gradient flows through a choice.
    """

    def __init__(
        self,
        policy: ModelLike,
        meta_loss: MetaLoss,
        *,
        dynamics: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        horizon: int,
        loss_inputs: LossInputs,
        inner_steps: int = 1,
        unroll: int | None = None,
        lives: int | tuple[int, int] | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(policy, meta_loss, inner_steps=inner_steps, unroll=unroll, lives=lives, seed=seed, name=name)
        check_counts(horizon=horizon)
        loss_inputs.check_fits(meta_loss)
        check_deterministic(self.learner.model, "the gradient flows through the action into the dynamics.")
        self.horizon: int = horizon
        self.loss_inputs: LossInputs = loss_inputs
        # Called through a function: a model of the dynamics is not part of this one, whose weights are phi.
        self._dynamics = lambda states, actions: dynamics(states, actions)
        model = getattr(dynamics, "__self__", dynamics)  # of a method
        self._get_dynamics_variables = lambda: getattr(model, "variables", [])
        self._last = Kept()

    @property
    def training_state(self) -> dict[str, Any]:
        return {**super().training_state, "last_policies": self._last.tracked}

    @property
    def read_variables(self) -> list[keras.Variable]:
        of_dynamics = [variable for variable in self._get_dynamics_variables() if isinstance(variable, keras.Variable)]
        return [*super().read_variables, *of_dynamics]

    def support(self, parameters: Parameters, batch: Batch) -> Any:
        _check_parts(batch)
        trajectory = self.rollout(parameters, *batch["support"])
        return learning_batch(tf.nest.map_structure(tf.stop_gradient, trajectory), self.loss_inputs)

    def rollout(self, parameters: Parameters, initial_states: tf.Tensor, goal: tf.Tensor) -> Trajectory:
        """Rolls the policies with these `Parameters` out in the model: a `Trajectory` `[N, B, ...]`."""
        return rollout_model(
            lambda states: self.inner_loop.predict(parameters, states),
            self._dynamics,
            initial_states,
            horizon=self.horizon,
            goal=goal,
            weights=parameters.trainable,
        )

    def outer_step(self, learners: LearnerState, batch: Batch) -> LearnerState:
        learners = super().outer_step(learners, batch)
        self._last.assign((learners.parameters, tuple(batch["support"])))
        return learners

    def last_policies(self) -> tuple[Parameters, tuple[tf.Tensor, tf.Tensor]]:
        """Returns the policies that the last step of `fit` trained, which Algorithm 3 rolls out on the real system.

        Returns:
            `(parameters, (initial_states, goals))`: `Parameters` of N policies and their support, `[N, B, ...]`.

        Raises:
            RuntimeError: `fit` has not taken a step yet.
        """
        if self._last.values is None:
            raise RuntimeError("There are no policies yet: `fit` has not taken a step.")
        return tf.nest.map_structure(tf.convert_to_tensor, self._last.values)


def _check_parts(batch: Batch) -> None:
    for name in ("support", "query"):
        part = batch[name]
        if not isinstance(part, (tuple, list)) or len(part) != 2:
            raise ValueError(
                "Tasks of policies are {'support': (initial_states, goals), 'query': (initial_states, goals)}, each "
                "[N, B, ...]; without goals, give some of width 0. Received: "
                f"batch['{name}']={tf.nest.map_structure(lambda values: tuple(values.shape), part)}"
            )
