"""The package is a guest in its user's process: what TensorFlow, Keras and gymnasium leave behind stays as it is."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, logging, os, random, sys, tempfile, warnings
import gymnasium, keras, numpy as np, tensorflow as tf, tensorflow_probability

def look():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "search path": list(sys.path),
        "hooks": [repr(sys.excepthook), repr(warnings.showwarning)],
        "warning filters": [repr(each) for each in warnings.filters],
        "handlers": {
            name: [repr(handler) for handler in getattr(logger, "handlers", [])] + [getattr(logger, "level", None)]
            for name, logger in [("root", logging.root), *logging.root.manager.loggerDict.items()]
        },
        "random numbers": repr(random.getstate()),
        "random numbers of NumPy": repr(np.random.get_state()),
        "precision": [keras.config.floatx(), keras.config.dtype_policy().name],
        "eager": [tf.config.functions_run_eagerly(), tf.executing_eagerly()],
        "threads": [tf.config.threading.get_intra_op_parallelism_threads(), tf.config.optimizer.get_jit()],
    }

def build():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])

changes = {}
def compare(step):
    global before
    after = look()
    for name in before:
        if isinstance(after[name], dict):
            # A logger that is new has been named, and no more.
            old, new = before[name], {k: v for k, v in after[name].items() if k in before[name] or any(v)}
            if old != new:
                changes.setdefault(step, {})[name] = {k: [old.get(k), v] for k, v in new.items() if old.get(k) != v}
        elif before[name] != after[name]:
            changes.setdefault(step, {})[name] = str(after[name])[:500]
    before = after

x = np.ones((8, 1), "float32")
model = build()
model.compile("sgd", "mse")
model.fit(x, x, verbose=0)
model.export(tempfile.mkdtemp(), verbose=False)  # absl gives the root logger a handler
before = look()
import ml3_tf, ml3_tf.baselines, ml3_tf.envs, ml3_tf.inspection, ml3_tf.rl
compare("import")
loss = ml3_tf.load_meta_loss("sine")
compare("load")
model.compile("sgd", loss)
model.fit(x, x, epochs=2, verbose=0)
compare("fit")
loss.export(tempfile.mkdtemp())
compare("export")
learner = build()
before = look()
trainer = ml3_tf.MetaTrainer(learner, loss, inner_steps=2, seed=0)
trainer.compile("adam", "mse", jit_compile=False)
tasks = {"support": (x[None], x[None]), "query": (x[None], x[None])}
trainer.fit(tf.data.Dataset.from_tensors(tasks), verbose=0)
ml3_tf.meta_test(learner, loss, "sgd", tasks, num_steps=2, seed=0)
compare("meta-training")
print(json.dumps(changes))
"""


@pytest.fixture(scope="module")
def changes():
    child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


def test_nothing_of_the_process_is_changed(changes):
    """But one thing: a trainer copies its learner, and Keras draws a seed for each layer of a copy."""
    changes.get("meta-training", {}).pop("random numbers", None)
    assert {step: names for step, names in changes.items() if names} == {}
