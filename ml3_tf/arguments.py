"""The types that public arguments share, and the check of those that count something.

Shape letters: T time; `...` any leading axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras

if TYPE_CHECKING:  # a learned loss runs on JAX and PyTorch, where there is no TensorFlow
    import numpy as np
    import tensorflow as tf

    from ml3_tf.inner_optimizer import StopScaleGradient
    from ml3_tf.meta_loss import LossPerHead

Mode: TypeAlias = Literal["per_sample", "per_output", "per_set"]
Reduction: TypeAlias = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] | None
TensorLike: TypeAlias = "tf.Tensor | np.ndarray | Sequence[Any] | float"
Batch: TypeAlias = Mapping[str, Any]
"""One element of a dataset of tasks: structures of tensors `[N, ...]` by name, such as "support" and "query"."""
ModelLike: TypeAlias = keras.Model | Callable[[], keras.Model]
LossLike: TypeAlias = keras.losses.Loss | str | Callable[[Any, Any], Any]
LossesLike: TypeAlias = "LossLike | LossPerHead | Mapping[str, LossLike | None] | Sequence[LossLike | None]"
"""A loss, or one for each output of a model."""
OptimizerLike: TypeAlias = keras.optimizers.Optimizer | str
InnerOptimizerLike: TypeAlias = "keras.optimizers.Optimizer | str | StopScaleGradient"
InitializerLike: TypeAlias = keras.initializers.Initializer | str


def check_counts(**counts: object) -> None:
    """Raises `ValueError` unless every argument is an integer of at least 1.

    Args:
        **counts: The arguments to check, by the names that the error shall use.

    Raises:
        ValueError: A value is not an integer, or is below 1.

    Example:

    >>> check_counts(horizon=65, num_steps=0)
    Traceback (most recent call last):
    ValueError: `num_steps` must be an integer of at least 1. Received: num_steps=0
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={count!r}")


@dataclasses.dataclass(frozen=True)
class LossInputs:
    """The inputs of a learned loss, for `MetaLoss.mlp`, and for the trainers and meta-tests of policies.

    Args:
        function: Function of a `ml3_tf.rl.Trajectory` that returns what the loss sees beside the policy's outputs,
            `[..., T, width]`. `None` for a loss of data sets, which sees `y_true` as it is.
        features: Mapping from the name of each feature to its width. The prediction comes first; the widths of the
            others add up to what `function` returns. For a per-output loss it returns columns of each for every output.
        scale: Optional sequence with one positive divisor per column of all features, e.g. the spread of a velocity.
        name: Optional name, by which `ml3_tf.rl.get_loss_inputs` finds those of the shipped losses.

    Raises:
        ValueError: `function` is not a function, or there are fewer than two features.

    Example:

    >>> import ml3_tf, tensorflow as tf
    >>> final_state = lambda tau: tf.repeat(tau.observations[..., -1:, :], tau.actions.shape[-2], -2)
    >>> inputs = LossInputs(final_state, {"action": 2, "final_state": 4})
    >>> ml3_tf.MetaLoss.mlp(features=inputs).network.input_shape
    (None, 6)
    """

    function: Callable[[Any], Any] | None
    features: Mapping[str, int]
    scale: Sequence[float] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        min_features = 1 if self.function is None else 2
        if not (self.function is None or callable(self.function)) or len(self.features) < min_features:
            raise ValueError(
                "`LossInputs` need a function of a trajectory or None, and the widths of the features: the prediction "
                f"and what else the loss sees, at least one with a function. Received: function={self.function!r}, "
                f"features={self.features!r}"
            )

    def __call__(self, trajectory: Any) -> Any:
        """Returns the inputs of the loss beside the policy's outputs, `[..., T, width]`."""
        if self.function is None:
            raise ValueError("These `LossInputs` have no function of a trajectory: give them one to train policies.")
        return self.function(trajectory)

    def check_fits(self, loss: Any) -> None:
        """Raises `ValueError` if `loss` is a `MetaLoss` whose features have other widths."""
        expected = list(getattr(loss, "features", self.features).values())
        if list(self.features.values()) != expected:
            raise ValueError(
                f"`loss_inputs` must have the widths of the loss's features, {loss.features}. Received: "
                f"{dict(self.features)}. Build the loss from them: MetaLoss.mlp(features=loss_inputs)."
            )
