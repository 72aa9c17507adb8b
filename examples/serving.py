"""Export a learned loss, and train a model on the export as a client of TensorFlow Serving does.

A TensorFlow Serving server loads the export and answers requests for the loss and its gradient. This example runs the
same graph in this process, without ml3_tf, and shows that a model learns the same. With the address of a server it also
trains on the server's answers.

Command: python examples/serving.py
         python examples/serving.py localhost:8500     (with a server; the first command prints how to start one)
Time: about 20 seconds on two CPU cores.

Expected output, the squared error of a regressor after 100 steps:

    untrained                           1.8206
    squared error                       1.5518
    learned loss                        0.8787
    the export, by ml3_tf               0.8787
    the export, by TensorFlow alone     0.8787
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import ml3_tf

NUM_EPOCHS = 100
FOLDER = Path(tempfile.gettempdir()) / "ml3_tf_models"
COMMAND = """To start a server (https://hub.docker.com/r/tensorflow/serving):

    docker run --rm -p 8500:8500 -p 8501:8501 -v {folder}:/models/sine -e MODEL_NAME=sine tensorflow/serving:2.20.0

To train on it, and to ask it for a loss:

    python examples/serving.py localhost:8500
    curl localhost:8501/v1/models/sine:predict -d '{{"instances": [{{"y_true": [1.0], "y_pred": [0.0]}}]}}'
"""


def make_loss_of_export(folder):
    """Returns a Keras loss made of an export and of TensorFlow alone: the server runs the same two signatures."""
    loaded = tf.saved_model.load(str(folder))
    score = loaded.signatures["value_and_grad"]

    @tf.custom_gradient
    def loss_of_export(y_true, y_pred):
        scores = score(y_true=tf.cast(y_true, tf.float32), y_pred=tf.cast(y_pred, tf.float32))

        def gradient(upstream, variables):  # the variables of the loss, which stay as they are
            return (None, upstream[:, tf.newaxis] * scores["grad"]), [None] * len(variables)

        return scores["loss"], gradient

    loss_of_export.loaded = loaded  # the signature does not keep its variables alive
    return loss_of_export


def train(loss, num_epochs):
    """Returns the squared error of a regressor, always the same one at first, trained with a loss."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((1,)), layers.Dense(40, "relu"), layers.Dense(40, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss=loss, jit_compile=False)  # a request cannot run inside XLA
    x = np.random.default_rng(0).uniform(-5, 5, (100, 1)).astype("float32")
    y = 2 * np.sin(x - 1)
    model.fit(x, y, batch_size=100, epochs=num_epochs, verbose=0)
    return float(np.mean((model(x) - y) ** 2))


def main(num_epochs=NUM_EPOCHS, folder=FOLDER, address=None):
    live_loss = ml3_tf.load_meta_loss("sine")
    version = live_loss.export(Path(folder) / "sine")  # writes sine/1, then sine/2, ...; a server takes the newest
    losses = {
        "untrained": None,
        "squared error": "mse",
        "learned loss": live_loss,
        "the export, by ml3_tf": ml3_tf.load_meta_loss(version.parent),
        "the export, by TensorFlow alone": make_loss_of_export(version),
    }
    if address is not None:
        from ml3_tf.serving import RemoteMetaLoss  # pip install "ml3_tf[serving]"

        losses[f"the server at {address}"] = RemoteMetaLoss(address, "sine")
    errors = {name: train(loss, num_epochs if loss else 0) for name, loss in losses.items()}
    for name, error in errors.items():
        print(f"{name:35} {error:.4f}")
    print(f"\nThe export is in {version}. {COMMAND.format(folder=version.parent)}")
    return errors


if __name__ == "__main__":
    main(address=sys.argv[1] if len(sys.argv) > 1 else None)
