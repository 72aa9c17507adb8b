"""Properties that every learned loss has, and every reader of files, tried on examples that hypothesis searches for."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ml3_tf
from ml3_tf import MetaLoss
from ml3_tf.saving import _safetensors, _strict_json
from ml3_tf.saving.errors import ArtifactError

# The same examples in each run, as many as named, however slow the machine is.
EXAMPLES = {"derandomize": True, "deadline": None, "suppress_health_check": list(HealthCheck)}
MODES = "per_sample", "per_output", "per_set"
LARGEST = 1e6


@st.composite
def architectures(draw, modes=MODES):
    """A function that builds a loss of any mode, architecture, layout, scale and rate, with weights up to 2."""
    mode = draw(st.sampled_from(modes))
    width = 1 if mode == "per_output" else draw(st.integers(1, 3))
    more = draw(st.integers(0, 1 if mode == "per_output" else 2))
    features = {"y_pred": width, "y_true": width, **({"more": more} if more else {})}
    scales = st.sampled_from([0.1, 1.0, 30.0])
    scale = [draw(scales)] * (2 + more) if mode == "per_output" else [draw(scales) for _ in range(2 * width + more)]
    layout = {"mode": mode, "features": ml3_tf.LossInputs(None, features, scale)}
    units = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rate = draw(st.sampled_from([None, 0.3, "network"]))
    base = draw(st.sampled_from([None, "mse", "huber"])) if rate != "network" else None
    activation = draw(st.sampled_from(["silu", "tanh", "softplus", "relu", "elu"]))
    arguments = {"activation": activation, "learning_rate": rate, **layout}
    if base is None:
        arguments |= {"output_activation": draw(st.sampled_from([None, "softplus"])), "score_units": (3,)}
    seed = draw(st.integers(0, 100))

    def build():
        loss = MetaLoss.mlp(units, **arguments) if base is None else MetaLoss.around(base, units, **arguments)
        generator = np.random.default_rng(seed)
        for variable in loss.trainable_variables:
            value = generator.uniform(-2, 2, variable.shape)
            variable.assign(value if variable.constraint is None else variable.constraint(value))
        return loss

    return build


def batches(loss, largest):
    """`(y_true, y_pred)` of up to six examples, with numbers up to `largest`."""
    pred_width, *true_widths = loss.features.values()
    times = 3 if loss.mode == "per_output" else 1
    num_outputs, width = times * pred_width, times * sum(true_widths)
    rows = lambda n, width: arrays("float32", (n, width), elements=st.floats(-largest, largest, width=32))
    return st.integers(1, 6).flatmap(lambda n: st.tuples(rows(n, width), rows(n, num_outputs)))


@given(st.data())
@settings(max_examples=40, **EXAMPLES)
def test_values_and_gradients_are_finite_and_have_their_shapes(data):
    loss = data.draw(architectures())()
    y_true, y_pred = data.draw(batches(loss, LARGEST))
    value, gradient = loss.value_and_gradient(y_true, y_pred)
    assert value.shape == y_pred.shape[:1] and gradient.shape == y_pred.shape
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


@given(st.data())
@settings(max_examples=40, **EXAMPLES)
def test_the_order_of_examples_does_not_matter(data):
    loss = data.draw(architectures())()
    y_true, y_pred = data.draw(batches(loss, 10))
    order = data.draw(st.permutations(range(len(y_pred))))
    values, gradients = loss.value_and_gradient(y_true, y_pred)
    permuted = loss.value_and_gradient(y_true[order], y_pred[order])
    for ours, theirs in zip(permuted, (values, gradients)):
        scale = 1 + np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs[order] / scale, atol=1e-5)


@given(st.data())
@settings(max_examples=20, **EXAMPLES)
def test_an_example_is_scored_by_itself_unless_it_is_in_a_set(data):
    loss = data.draw(architectures(modes=("per_sample", "per_output")))()
    y_true, y_pred = data.draw(batches(loss, 10))
    together, _ = loss.value_and_gradient(y_true, y_pred)
    alone = [loss.value_and_gradient(y_true[n : n + 1], y_pred[n : n + 1])[0][0] for n in range(len(y_pred))]
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4 * (1 + np.abs(together).max()))


@given(st.data())
@settings(max_examples=8, **EXAMPLES)
def test_eager_graph_and_xla_agree(data):
    loss = data.draw(architectures())()
    y_true, y_pred = map(tf.constant, data.draw(batches(loss, 10)))

    def value_and_gradient(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss.call(y_true, y_pred)
        return value, tape.gradient(value, y_pred, unconnected_gradients="zero")

    expected = value_and_gradient(y_true, y_pred)
    for jit_compile in (False, True):
        compiled = tf.function(value_and_gradient, autograph=False, jit_compile=jit_compile)
        for ours, theirs in zip(compiled(y_true, y_pred), expected):
            scale = 1 + np.abs(theirs).max()
            np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)


@given(st.data())
@settings(max_examples=15, **EXAMPLES)
def test_nan_gives_nan(data):
    loss = data.draw(architectures())()
    y_true, y_pred = (values.copy() for values in data.draw(batches(loss, 10)))
    row, is_target = data.draw(st.integers(0, len(y_pred) - 1)), data.draw(st.booleans())
    (y_true if is_target else y_pred)[row] = np.nan
    concerned = slice(None) if loss.mode == "per_set" else row
    for call in (loss.call, tf.function(loss.call, autograph=False, jit_compile=True)):
        values = call(tf.constant(y_true), tf.constant(y_pred)).numpy()
        assert np.isnan(values[concerned]).all()
        assert np.isfinite(np.delete(values, row)).all() or loss.mode == "per_set"


@given(st.data())
@settings(max_examples=20, **EXAMPLES)
def test_a_loss_is_its_configuration(data):
    loss = data.draw(architectures())()
    y_true, y_pred = data.draw(batches(loss, 10))
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    for ours, theirs in zip(
        keras.losses.deserialize(config).value_and_gradient(y_true, y_pred), loss.value_and_gradient(y_true, y_pred)
    ):
        np.testing.assert_array_equal(ours, theirs)


# Readers of files that a stranger made

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=5), parts, max_size=4),
    max_leaves=20,
)
ALMOST_JSON = '{}[]",:0129eE+-.\\ntrufals\u0000\u00e9 '
SHAPES = {"a": (2, 3), "b": (), "c": (0,)}


def has_number_that_json_lacks(value):
    if isinstance(value, float):
        return not math.isfinite(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(has_number_that_json_lacks, parts))


@given(JSON)
@settings(max_examples=300, **EXAMPLES)
def test_json_is_read_as_python_reads_it_or_refused(value):
    data = json.dumps(value).encode()
    try:
        assert _strict_json.parse(data, "file") == json.loads(data)
    except ArtifactError:
        depth = max(len(data.split(b"[")), len(data.split(b"{")))
        assert not isinstance(value, dict) or has_number_that_json_lacks(value) or depth > 1


@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]",:0129eE+-.\\\\ntrufalsn\\u0000é ', max_size=60).map(str.encode)
)
@settings(max_examples=500, **EXAMPLES)
def test_no_bytes_break_the_reader_of_json(data):
    try:
        _strict_json.parse(data, "file")
    except ArtifactError as error:
        assert "file" in str(error)


@given(st.data())
@settings(max_examples=300, **EXAMPLES)
def test_no_bytes_break_the_reader_of_weights(data):
    pristine = _safetensors.to_bytes({name: np.ones(shape, "float32") for name, shape in SHAPES.items()})
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(pristine)))
        end = data.draw(st.integers(start, min(start + 20, len(pristine))))
        received = pristine[:start] + data.draw(st.binary(max_size=20)) + pristine[end:]
    else:
        received = data.draw(st.binary(max_size=300))
    try:
        read = _safetensors.from_bytes(received, SHAPES, "file")
    except ArtifactError as error:
        assert "file" in str(error)
    else:
        assert {name: array.shape for name, array in read.items()} == SHAPES
        assert all(np.isfinite(array).all() for array in read.values())


NUMBERS = arrays(
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([(), (0,), (3,), (2, 2)]),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@given(st.dictionaries(st.sampled_from("abcdef"), NUMBERS, min_size=1))
@settings(max_examples=100, **EXAMPLES)
def test_arrays_are_read_as_they_were_written(values):
    shapes = {name: array.shape for name, array in values.items()}
    read = _safetensors.from_bytes(_safetensors.to_bytes(values), shapes, "file")
    for name, array in values.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_the_shipped_losses_are_finite_for_large_numbers():
    for name in ml3_tf.list_meta_losses().names:
        loss = ml3_tf.load_meta_loss(name)
        times = 3 if loss.mode == "per_output" else 1
        width, *others = [times * width for width in loss.features.values()]
        for sign in (1, -1):
            value, gradient = loss.value_and_gradient(
                np.full((4, sum(others)), sign * LARGEST), np.full((4, width), LARGEST)
            )
            assert np.isfinite(value).all() and np.isfinite(gradient).all(), name


def test_what_is_searched_for_is_found():
    """A planted fault, a loss that overflows, does not pass."""
    loss = MetaLoss.mlp((3,), activation="exponential")
    for variable in loss.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))

    @given(batches(loss, LARGEST))
    @settings(max_examples=40, **EXAMPLES)
    def search(batch):
        assert np.isfinite(loss.value_and_gradient(*batch)[0]).all()

    with pytest.raises(AssertionError):
        search()
