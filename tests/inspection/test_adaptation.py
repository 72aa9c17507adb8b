"""The figure of a loss that was learned while a model trained with it."""

import keras
import numpy as np
import pytest

from ml3_tf import AdaptLoss, MetaLoss
from ml3_tf.inspection import plot_adaptation


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_it_shows_the_scores_and_the_gradients_of_the_first_and_last_loss(kind):
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    loss, y, last, task_loss = MetaLoss.around("mse"), x[:, :1], keras.layers.Dense(1), "mae"
    if kind == "classes":
        loss = MetaLoss.around("categorical_crossentropy", mode="per_output")
        y, last, task_loss = np.eye(2)[(x[:, 0] > 0).astype(int)], keras.layers.Dense(2, "softmax"), "mse"
    model = keras.Sequential([keras.Input((3,)), last])
    model.compile("sgd", loss=loss)
    callback = AdaptLoss((x, y), (x, y), loss=task_loss, optimizer=keras.optimizers.Adam(0.1), every=1)
    with pytest.raises(ValueError, match="has not moved a loss yet"):
        plot_adaptation(callback)
    model.fit(x, y, epochs=9, callbacks=[callback], verbose=0)
    scores, gradients = plot_adaptation(callback).axes
    np.testing.assert_allclose(scores.lines[0].get_ydata(), [s["meta_loss"] for s in callback.snapshots])
    labels = [text.get_text() for text in gradients.get_legend().get_texts()]
    assert labels == [f"after {n} epochs" for n in (0, 2, 4, 5, 7, 9)]
    first, last = gradients.lines[0], gradients.lines[5]
    p = first.get_xdata()
    np.testing.assert_allclose(first.get_ydata(), 2 * p if kind == "numbers" else 1 - 1 / p, rtol=1e-4, atol=1e-4)
    assert not np.allclose(first.get_ydata(), last.get_ydata(), atol=1e-3)
    assert gradients.get_xlabel() == ("prediction" if kind == "numbers" else "predicted probability")
