"""Tests of `ml3_tf.saving._graph_check`: operations with effects are found wherever they hide in a SavedModel."""

import pytest
import tensorflow as tf
from saving_helpers import parse, reads_a_file, save, squared_error
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from ml3_tf.saving import _graph_check
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError


def runs_python(y_true, y_pred):
    return tf.reshape(tf.py_function(lambda y: y, [squared_error(y_true, y_pred)], tf.float32), [-1])


def reads_in_a_branch(y_true, y_pred):
    error = squared_error(y_true, y_pred)
    hidden = lambda: error + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
    return tf.cond(tf.reduce_sum(error) > 1e9, hidden, lambda: error)


def writes_in_a_loop(y_true, y_pred):
    def body(i):
        with tf.control_dependencies([tf.io.write_file("/tmp/stolen", "x")]):
            return i + 1

    return squared_error(y_true, y_pred) + tf.cast(tf.while_loop(lambda i: i < 3, body, [0])[0], tf.float32)


def reads_in_a_dataset(y_true, y_pred):
    data = tf.data.Dataset.range(1).map(lambda i: tf.strings.length(tf.io.read_file("/etc/hostname")))
    return squared_error(y_true, y_pred) + tf.cast(data.reduce(0, lambda a, b: a + b), tf.float32)


def prints(y_true, y_pred):
    tf.print("hello")
    return squared_error(y_true, y_pred)


@pytest.mark.parametrize(
    "function, operation",
    [
        (reads_a_file, "ReadFile|StringLength"),
        (runs_python, "EagerPyFunc"),
        (reads_in_a_branch, "ReadFile|StringLength"),
        (writes_in_a_loop, "WriteFile|While"),
        (reads_in_a_dataset, "ReadFile|StringLength|RangeDataset|MapDataset|ReduceDataset"),
        (prints, "PrintV2|StringFormat"),
    ],
)
def test_other_operations_are_refused_by_name(function, operation, tmp_path):
    with pytest.raises(UnsafeArtifactError, match=f"'f': .* holds the operation '({operation})'"):
        _graph_check.check(parse(save(function, tmp_path)), "f")


def make_table():
    keys, values = tf.constant(["a"]), tf.constant([1.0])
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0.0)


@pytest.mark.parametrize("kind", ["table", "asset"])
def test_tables_and_assets_are_refused(kind, tmp_path):
    if kind == "table":
        held = make_table()
    else:
        (tmp_path / "words.txt").write_text("secret")
        held = tf.saved_model.Asset(str(tmp_path / "words.txt"))
    with pytest.raises(UnsafeArtifactError, match="reads an asset|an object of kind 'resource'|an object '"):
        _graph_check.check(parse(save(squared_error, tmp_path / "1", held=held)), "f")


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return parse(save(squared_error, tmp_path_factory.mktemp("honest"), weight=tf.Variable(1.0)))


@pytest.fixture
def tampered(honest):
    copy = saved_model_pb2.SavedModel()
    copy.CopyFrom(honest)
    return copy


def library(model):
    return model.meta_graphs[0].graph_def.library


def function_named(model, part):
    return next(function for function in library(model).function if part in function.signature.name)


def set_huge_constant(model):
    node = function_named(model, "squared_error").node_def.add(name="huge", op="Const")
    node.attr["value"].tensor.tensor_shape.dim.add(size=10**12)


def set_huge_variable(model):
    nodes = model.meta_graphs[0].object_graph_def.nodes
    variable = next(node.variable for node in nodes if node.WhichOneof("kind") == "variable")
    variable.shape.dim.add(size=10**9)


def add_call(model, **attributes):
    """Adds a call of a pure function to one of the graph's functions."""
    called = function_named(model, "squared_error")
    node = called.node_def.add(name="call", op="PartitionedCall")
    node.attr["f"].func.name = called.signature.name
    for key, value in attributes.items():
        node.attr[key].s = value


def set_custom_optimizer(model):
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.custom_optimizers.add(name="evil")
    add_call(model, config_proto=config.SerializeToString())


def set_implementation(model):
    """A function that no node calls, of the same interface as an endpoint: TensorFlow puts it in its place."""
    for part in ("squared_error", "traced_save"):
        function_named(model, part).attr["api_implements"].s = b"score"


def test_honest_model_is_accepted(honest):
    _graph_check.check(honest, "f")


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda m: m.meta_graphs.add(), UnsafeArtifactError, "holds 2 graphs. Expected 1"),
        (lambda m: m.ClearField("meta_graphs"), UnsafeArtifactError, "holds 0 graphs"),
        (lambda m: m.meta_graphs[0].ClearField("object_graph_def"), UnsafeArtifactError, "was written by TensorFlow 1"),
        (lambda m: m.meta_graphs[0].collection_def["table_initializer"], UnsafeArtifactError, "table_initializer"),
        (set_huge_constant, UnsafeArtifactError, r"constant 'huge' has shape \[1000000000000\]"),
        (set_huge_variable, UnsafeArtifactError, "variable .* has shape"),
        (
            set_implementation,
            UnsafeArtifactError,
            "has the attribute 'api_implements', .* another function in its place",
        ),
        (
            lambda m: add_call(m, _implements=b"x"),
            UnsafeArtifactError,
            "node 'call' has the attribute '_implements'",
        ),
        (set_custom_optimizer, UnsafeArtifactError, "the 'config_proto' of node 'call' configures"),
        (lambda m: add_call(m, executor_type=b"evil"), UnsafeArtifactError, "the 'executor_type' of node 'call'"),
        (
            lambda m: function_named(m, "squared_error").node_def.add(name="save", op="SaveV2"),
            UnsafeArtifactError,
            "holds the operation 'SaveV2'",
        ),
        (
            lambda m: function_named(m, "traced_restore").node_def.add(name="run", op="ReadFile"),
            UnsafeArtifactError,
            "holds the operation 'ReadFile'",
        ),
        (
            lambda m: library(m).registered_gradients.add(gradient_func="gone", registered_op_type="x"),
            CorruptArtifactError,
            "calls a function 'gone' that it does not hold",
        ),
        (
            lambda m: library(m).registered_gradients.add(
                gradient_func=function_named(m, "traced_save").signature.name, registered_op_type="x"
            ),
            UnsafeArtifactError,
            "holds the operation '(MergeV2Checkpoints|ShardedFilename|SaveV2|String.*|Static.*|Disable.*)'",
        ),
        (
            lambda m: library(m).function.append(library(m).function[0]),
            CorruptArtifactError,
            "two functions with the same name",
        ),
        (
            lambda m: setattr(m.meta_graphs[0].object_graph_def.nodes[0], "registered_name", "Evil"),
            UnsafeArtifactError,
            "'Evil'",
        ),
        (
            lambda m: setattr(m.meta_graphs[0].object_graph_def.nodes[0].user_object, "identifier", "trackable_evil"),
            UnsafeArtifactError,
            "an object 'trackable_evil'",
        ),
    ],
)
def test_tampered_models_are_refused(tampered, change, error, words):
    change(tampered)
    with pytest.raises(error, match=words):
        _graph_check.check(tampered, "f")


def test_list_holds_no_operation_with_effects():
    known = {"AssignVariableOp", "VarHandleOp", "ReadVariableOp"}
    for name in _graph_check.MATHEMATICS | _graph_check.PLUMBING:
        assert hasattr(tf.raw_ops, name) or name.endswith("Grad") or name in known, name
    words = "File PyFunc Table Dataset Queue Random Print While Remote Send Save Restore".split()
    assert not [name for name in _graph_check.MATHEMATICS if any(word in name for word in words)]


def test_errors_are_artifact_errors():
    with pytest.raises(ArtifactError):
        _graph_check.check(saved_model_pb2.SavedModel(), "f")
