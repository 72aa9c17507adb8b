"""Loads a loss without TensorFlow, compares it with the results of TensorFlow, and trains with it.

`test_backends.py` runs it in an interpreter of its own: `python backend_probe.py FOLDER EXPECTED.npz`.
"""

import sys

BLOCKED = ("tensorflow", "tensorflow_probability", "tf_keras")


def main(folder, expected):
    sys.modules.update(dict.fromkeys(BLOCKED))  # with None, importing them raises, even if they are installed
    import keras
    import numpy as np

    import ml3_tf

    loss = ml3_tf.load_meta_loss(folder)
    with np.load(expected) as arrays:
        values, gradient = value_and_gradient(loss, arrays["y_true"], arrays["y_pred"])
        np.testing.assert_allclose(values, arrays["loss"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, arrays["grad"], rtol=1e-6, atol=1e-6)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss)
    before = model.get_weights()
    history = model.fit(x, x.sum(axis=1, keepdims=True), batch_size=8, epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(history))
    assert not np.array_equal(before[0], model.get_weights()[0])
    assert not [name for name, module in sys.modules.items() if name.split(".")[0] in BLOCKED and module]
    print(keras.backend.backend(), "trained")


def value_and_gradient(loss, y_true, y_pred):
    """Returns the loss of each example and its gradient for `y_pred`, computed by the backend."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        values, pull_back = jax.vjp(lambda inputs: loss.call(y_true, inputs), y_pred)
        return values, pull_back(jax.numpy.ones_like(values))[0]
    import torch

    inputs = torch.tensor(y_pred, requires_grad=True)
    values = loss.call(y_true, inputs)
    return values.detach(), torch.autograd.grad(values.sum(), inputs)[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
