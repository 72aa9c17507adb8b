"""The losses that `shaped_sine.py` learns."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import keras

import ml3_tf

if TYPE_CHECKING:
    from shaped_sine import Settings


class Method(NamedTuple):
    """A learned loss, and how it is learned."""

    mode: Literal["per_set", "per_sample"] = "per_set"
    shaped: bool = True  # whether the extra term alone (beta 0, gamma 1), or the squared error alone, is the task loss
    with_x: bool = True  # whether the loss sees x
    noise: float = 0.0  # on y in meta-training, standard deviation


METHODS = {
    "shaped": Method(),
    "unshaped": Method(shaped=False),
    "per_point": Method(mode="per_sample"),
    "shaped_without_x": Method(with_x=False),
    "noise_trained": Method(noise=0.1),
}


def build_loss(name: str, settings: "Settings") -> ml3_tf.MetaLoss:
    method = METHODS[name]
    features = {"y_pred": 1, "y": 1, "x": 1} if method.with_x else {"y_pred": 1, "y": 1}
    return ml3_tf.MetaLoss.mlp(
        settings.hidden_units,
        mode=method.mode,
        features=ml3_tf.LossInputs(None, features, [settings.input_scale] * len(features)),
        score_units=settings.score_units,
        learning_rate=settings.rate_of_loss,
        output_initializer=keras.initializers.RandomNormal(stddev=settings.output_stddev),
        name="shaped_sine" if name == "shaped" else name,
    )
