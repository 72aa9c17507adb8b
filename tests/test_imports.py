"""What importing ml3_tf loads, stage by stage in one fresh process: nobody waits for what is not used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ml3_tf

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = {"gymnasium", "mujoco", "tensorflow_probability", "tf_keras"}

# Each stage prints the modules that are loaded after it, and what it found.
STAGES = """
import json, sys

def end(stage, **found):
    print(json.dumps({"stage": stage, "loaded": sorted(sys.modules), **found}))

import keras, tensorflow as tf
import numpy as np
end("tensorflow")
import ml3_tf
end("ml3_tf", names=dir(ml3_tf))
from ml3_tf import saving
is_loaded = "ml3_tf.saving._foreign" in sys.modules
end("saving", is_loaded=is_loaded, names=dir(saving), module=saving.SavedModelLoss.__module__)
import ml3_tf.rl, ml3_tf.baselines
end("rl")
model = ml3_tf.rl.DynamicsEnsemble(state_size=3, action_size=2, num_members=1, hidden_units=())
data = [np.ones((4, width), "float32") for width in (3, 2, 3)]
model.adapt(*data)
model.next_states(*data[:2])
end("dynamics used")
# TensorFlow Probability is first imported while a graph is built, and then used outside of it.
tf.function(lambda: model.compute_loss(data[:2], data[2], model(data[:2])))()
model.score(*data)
end("dynamics trained")
import ml3_tf.envs
end("envs")
sys.modules.update({name: None for name in sys.modules if name.split(".")[0] == "matplotlib"} | {"matplotlib": None})
from ml3_tf import inspection
formula = str(inspection.explain("mse"))
try:
    inspection.plot_meta_loss
except ImportError as error:
    end("inspection", formula=formula, error=str(error))
"""


@pytest.fixture(scope="module")
def stages():
    """Stage -> what it printed."""
    process = subprocess.run([sys.executable, "-c", STAGES], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{"stage"')]
    return {line["stage"]: line for line in lines}


def packages(modules):
    return {module.split(".")[0] for module in modules}


def test_the_core_loads_no_optional_or_heavy_package(stages):
    loaded = stages["ml3_tf"]["loaded"]
    assert not packages(loaded) & OPTIONAL
    # Keras itself loads matplotlib and scikit-learn where they are installed.
    added = set(loaded) - set(stages["tensorflow"]["loaded"])
    assert packages(added) <= {"ml3_tf"} | sys.stdlib_module_names
    assert "ml3_tf.meta_loss" in added
    assert not {"ml3_tf.meta_trainer", "ml3_tf.saving", "ml3_tf.rl"} & added


def test_dir_names_all_before_anything_is_used(stages):
    names = stages["ml3_tf"]["names"]
    assert set(ml3_tf.__all__) <= set(names)
    assert names == sorted(set(names))


def test_losses_of_other_makers_are_imported_when_they_are_first_used(stages):
    saving = stages["saving"]
    assert not saving["is_loaded"] and saving["module"] == "ml3_tf.saving._foreign"
    assert "SavedModelLoss" in saving["names"]


def test_who_has_no_environments_needs_no_package_for_them(stages):
    assert not packages(stages["rl"]["loaded"]) & OPTIONAL


def test_tensorflow_probability_is_imported_when_it_is_needed(stages):
    needed = {"tensorflow_probability", "tf_keras"}
    assert not packages(stages["dynamics used"]["loaded"]) & needed
    assert packages(stages["dynamics trained"]["loaded"]) >= needed


def test_registering_environments_loads_no_simulator(stages):
    loaded = packages(stages["envs"]["loaded"])
    assert "gymnasium" in loaded and "mujoco" not in loaded


def test_matplotlib_is_needed_for_figures_alone(stages):
    inspection = stages["inspection"]
    assert inspection["formula"] == "loss ≈ 1.00·e² (R² = 1.000 for y in [-5, 5])"
    assert inspection["error"].startswith("`ml3_tf.inspection.plot_meta_loss` needs matplotlib, which")
    assert inspection["error"].endswith("pip install 'ml3_tf[plot]'")
