"""Tests of `ml3_tf.inner_loop._replicas`: two devices learn what one learns."""

import json
import subprocess
import sys
import types

import distributed_runs
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import Replicas
from ml3_tf.inner_loop._replicas import gather_packed

FAST = ["lives", "an uneven number of tasks"]


def run_on_two_devices(names, **environment):
    """Returns what one device and two learn, for each case."""
    finished = subprocess.run(
        [sys.executable, distributed_runs.__file__, "devices", *names],
        env={**distributed_runs.ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return {result.pop("case"): result for result in map(json.loads, finished.stdout.splitlines())}


def assert_equal(one, two):
    for phi, same in zip(one["phi"], two["phi"], strict=True):
        np.testing.assert_allclose(same, phi, rtol=1e-6, atol=1e-6)
    one["curves"].pop("samples_per_second", None), two["curves"].pop("samples_per_second", None)
    assert one["curves"].keys() == two["curves"].keys()
    for name, curve in one["curves"].items():
        np.testing.assert_allclose(two["curves"][name], curve, rtol=1e-5, err_msg=name)


def test_two_devices_learn_what_one_learns():
    results = run_on_two_devices(FAST)
    assert_equal(**results["lives"])
    error = results["an uneven number of tasks"]["error"]
    assert "Each of the 2 replicas takes as many tasks as the others" in error
    assert "expected a batch of a multiple of 2 tasks. Received: 3 tasks" in error


@pytest.mark.long
def test_two_devices_learn_what_one_learns_in_every_way():
    names = [name for name in distributed_runs.CASES if name not in FAST]
    results = run_on_two_devices(names, XLA_FLAGS="--xla_backend_optimization_level=0")
    error = results.pop("dynamics in a function by XLA")["error"]
    assert "variables of /job:localhost/replica:0/task:0/device:CPU:0 that XLA cannot read on" in error
    assert "Give a model as `dynamics`" in error and "jit_compile=False" in error
    assert len(results) == len(names) - 1
    for result in results.values():
        assert_equal(**result)


def test_other_strategies_are_refused():
    trainer, _ = distributed_runs.make_trainer(None)
    with pytest.raises(RuntimeError, match="call `distribute` before `compile`"):
        trainer.distribute(tf.distribute.OneDeviceStrategy("CPU:0"))
    with pytest.raises(ValueError, match="expected one of tf.distribute's MirroredStrategy.*Received: _Default"):
        Replicas(tf.distribute.get_strategy())


def test_hosts_take_one_step_in_a_call():
    replicas = Replicas(tf.distribute.OneDeviceStrategy("CPU:0"))
    replicas.check_steps(10)
    replicas.num_hosts = 2
    replicas.check_steps(1)
    with pytest.raises(ValueError, match="expected steps_per_execution=1. Received: steps_per_execution=10"):
        replicas.check_steps(10)


def test_tensors_of_all_types_are_gathered():
    """Tensors of 2 replicas: floats, integers with all their bits, and truth values, of one row or two."""
    own = {
        "float": tf.constant([[1.5, 2.5], [3.5, 4.5]]),
        "double": tf.constant([[1.0]], tf.float64),
        "scalar": tf.constant([0.5]),
        "int": tf.constant([7, 8]),
        "seed": tf.constant([[2**32 - 1, 5], [2**31, 6]], tf.uint32),
        "bool": tf.constant([True, False]),
        "byte": tf.constant([[255], [0]], tf.uint8),
        "bytes of a half": tf.constant([1.0, 2.0], tf.float16),
    }
    sizes = []

    def gather(values):
        sizes.append(tuple(values.shape))
        return tf.concat([values, values], 0)

    gathered = gather_packed(own, gather, count=2)
    for name, values in own.items():
        assert gathered[name].dtype == values.dtype
        np.testing.assert_array_equal(gathered[name], np.concatenate([values, values]), err_msg=name)
        assert gathered[name].shape == (2 * values.shape[0], *values.shape[1:])
    assert len(sizes) == len({values.dtype for values in own.values()})


def test_variables_of_one_host_are_left_alone():
    variable = tf.Variable(1.0)
    Replicas(tf.distribute.OneDeviceStrategy("CPU:0")).agree([variable])
    assert variable.numpy() == 1.0


def test_captured_variables_are_told(monkeypatch):
    replicas = Replicas(tf.distribute.OneDeviceStrategy("CPU:0"))
    replicas.check_captured([tf.Variable(0.0)])
    monkeypatch.setattr(replicas, "_devices", ["CPU:0", "CPU:1"])
    replicas.check_captured([])
    with pytest.raises(ValueError, match="read variables of CPU:0 that XLA cannot read on CPU:1: gain"):
        replicas.check_captured([types.SimpleNamespace(name="gain")])
