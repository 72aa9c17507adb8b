"""Tests of the files that a TF Serving server reads: an export, and the configuration in `serving/`."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from ml3_tf.serving import RemoteMetaLoss

ROOT = Path(__file__).resolve().parents[1]
X = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
Y = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
# Messages of TF Serving that its Python package leaves out, with their field numbers.
MESSAGES = """
name: "serving.proto" syntax: "proto3" dependency: "google/protobuf/wrappers.proto"
message_type {
  name: "BatchingParameters"
  field { name: "max_batch_size" number: 1 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "batch_timeout_micros" number: 2 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "max_enqueued_batches" number: 3 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "num_batch_threads" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" }
  field { name: "allowed_batch_sizes" number: 6 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "PrometheusConfig"
  field { name: "enable" number: 1 type: TYPE_BOOL }
  field { name: "path" number: 2 type: TYPE_STRING }
}
message_type {
  name: "MonitoringConfig"
  field { name: "prometheus_config" number: 1 type: TYPE_MESSAGE type_name: ".PrometheusConfig" }
}
"""


@pytest.fixture(scope="module")
def exported(make_loss, tmp_path_factory):
    """A loss and the folder of its exported version."""
    loss = make_loss(features={"y_pred": 2, "state": 3})
    return loss, loss.export(tmp_path_factory.mktemp("models") / "sine")


def assert_close(received, expected, tolerance=1e-6):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def load_signatures(session, folder):
    return tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder)).signature_def


def parse(file, name):
    """Returns the message `name` in a file of `serving/`."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(MESSAGES, descriptor_pb2.FileDescriptorProto()))
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return text_format.Parse((ROOT / "serving" / file).read_text(), kind())


# An export, loaded like a server does


def test_export_runs_with_the_loader_and_session_of_the_server(exported):
    loss, folder = exported
    value, gradient = loss.value_and_gradient(Y, X)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signatures = load_signatures(session, folder)
        for name, expected in {"serving_default": [value], "value_and_grad": [gradient, value]}.items():
            signature = signatures[name]
            assert signature.method_name == "tensorflow/serving/predict"
            feed = {signature.inputs["y_true"].name: Y, signature.inputs["y_pred"].name: X}
            names = [signature.outputs[key].name for key in sorted(signature.outputs)]
            assert_close(session.run(names, feed), expected)


class TFOutput(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def load_c_api():
    library = ctypes.CDLL(str(Path(tf.sysconfig.get_lib()) / "libtensorflow_cc.so.2"))
    pointers = "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_AllocateTensor"
    for name in f"{pointers} TF_TensorData TF_GraphOperationByName".split():
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    return library


def test_export_runs_with_the_c_api(exported):
    loss, folder = exported
    c, pointer = load_c_api(), ctypes.c_void_p
    status, graph = pointer(c.TF_NewStatus()), pointer(c.TF_NewGraph())
    options, tags = pointer(c.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve")
    path = str(folder).encode()
    session = pointer(c.TF_LoadSessionFromSavedModel(options, None, path, tags, 1, graph, None, status))
    assert c.TF_GetCode(status) == 0, c.TF_Message(status)

    def output(info):
        name, index = info.name.split(":")
        return TFOutput(c.TF_GraphOperationByName(graph, name.encode()), int(index))

    def tensor(values):
        shape = (ctypes.c_int64 * values.ndim)(*values.shape)
        made = c.TF_AllocateTensor(1, shape, values.ndim, ctypes.c_size_t(values.nbytes))
        ctypes.memmove(c.TF_TensorData(pointer(made)), values.tobytes(), values.nbytes)
        return made

    with tf.compat.v1.Session(graph=tf.Graph()) as reader:
        signature = load_signatures(reader, folder)["serving_default"]
    inputs = (TFOutput * 2)(*(output(signature.inputs[name]) for name in ("y_true", "y_pred")))
    values, results = (pointer * 2)(tensor(Y), tensor(X)), (pointer * 1)()
    outputs = (TFOutput * 1)(output(signature.outputs["loss"]))
    c.TF_SessionRun(session, None, inputs, values, 2, outputs, results, 1, None, 0, None, status)
    assert c.TF_GetCode(status) == 0, c.TF_Message(status)
    received = ctypes.string_at(c.TF_TensorData(pointer(results[0])), c.TF_TensorByteSize(pointer(results[0])))
    assert_close([np.frombuffer(received, "float32")], [loss.call(Y, X)])


# Both commands run in one process, because most of its time is the import.
CLI = """
import json, sys
from tensorflow.python.tools import saved_model_cli

for command in json.loads(sys.argv[1]):
    sys.argv = ["saved_model_cli", *command]
    try:
        saved_model_cli.main()
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_saved_model_cli_shows_and_runs_the_export(exported, tmp_path):
    loss, folder = exported
    np.savez(tmp_path / "in.npz", y_true=Y, y_pred=X)
    common = ["--dir", str(folder), "--tag_set", "serve", "--signature_def", "value_and_grad"]
    inputs = f"y_true={tmp_path}/in.npz[y_true];y_pred={tmp_path}/in.npz[y_pred]"
    commands = json.dumps([["show", *common], ["run", *common, "--inputs", inputs, "--outdir", str(tmp_path)]])
    ran = subprocess.run([sys.executable, "-c", CLI, commands], capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    for words in ("inputs['y_true']", "shape: (-1, 3)", "outputs['grad']", "shape: (-1, 2)"):
        assert words in ran.stdout
    assert_close([np.load(tmp_path / f"{name}.npy") for name in ("loss", "grad")], loss.value_and_gradient(Y, X))


# The files of serving/


def test_models_config_parses():
    text = (ROOT / "serving" / "models.config").read_text()
    models = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert [model.name for model in models] == ["sine", "digits"]
    assert all((ROOT / "savedmodels" / model.name).is_dir() for model in models)
    assert {model.model_platform for model in models} == {"tensorflow"}
    assert all(model.base_path == f"/models/{model.name}" for model in models)


def test_batching_parameters_parse_and_fit_the_client():
    parameters = parse("batching_parameters.txt", "BatchingParameters")
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value
    assert RemoteMetaLoss("nowhere:1", "sine").max_batch_size <= parameters.max_batch_size.value


def test_monitoring_config_parses():
    config = parse("monitoring.config", "MonitoringConfig").prometheus_config
    assert (config.enable, config.path) == (True, "/monitoring/prometheus/metrics")
