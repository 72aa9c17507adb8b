"""The README's examples run as they stand, but for the number of steps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

import ml3_tf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_twenty_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "steps_per_epoch=500, epochs=4" in BLOCKS[0]
    names = {}
    exec(BLOCKS[0].replace("steps_per_epoch=500, epochs=4", "steps_per_epoch=2, epochs=1, verbose=0"), names)
    x = np.linspace(-1, 1, 10).reshape(-1, 1)
    names["model"].fit(x, np.sin(x), verbose=0)
    assert (tmp_path / "my_loss" / "1" / "saved_model.pb").is_file()

    names |= {"x": x, "y": np.sin(x)}
    exec(BLOCKS[1].replace("epochs=100", "epochs=2, verbose=0"), names)


def test_tensorflow_alone_trains_as_the_loss_does(tmp_path):
    """The snippet in a process that cannot import ml3_tf, against the live loss here, under XLA."""
    loss = ml3_tf.MetaLoss.mlp((5,))
    loss.export(tmp_path / "my_loss")
    script = f"""
import sys
sys.modules["ml3_tf"] = None
import keras, numpy as np
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
{BLOCKS[2]}
x = np.linspace(-1, 1, 20).reshape(-1, 1)
model.fit(x, np.sin(x), epochs=2, shuffle=False, batch_size=5, verbose=0)
print([float(v) for w in model.get_weights() for v in w.ravel()])
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss=loss, jit_compile=True)
    x = np.linspace(-1, 1, 20).reshape(-1, 1)
    model.fit(x, np.sin(x), epochs=2, shuffle=False, batch_size=5, verbose=0)
    weights = [float(v) for w in model.get_weights() for v in w.ravel()]
    np.testing.assert_allclose(json.loads(run.stdout.splitlines()[-1]), weights, rtol=1e-5, atol=1e-7)


def test_the_policy_learns_to_climb_the_hill(capsys):
    keras.utils.set_random_seed(0)
    exec(BLOCKS[3], {})
    distances = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[-10:]]
    assert distances[0] > 1.0 and distances[-1] < 0.1


def test_every_file_that_the_readme_names_exists():
    paths = re.findall(r"\]\((?!http)([^)#]+)\)", README) + re.findall(
        r"`((?:ml3_tf|recipes|benchmarks)/[\w/.]+)`", README
    )
    assert len(paths) > 8
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
