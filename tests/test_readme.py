"""The README's examples run as they stand, but for the number of steps."""

import re
from pathlib import Path

import numpy as np

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

    import tensorflow as tf

    names |= {"tf": tf, "y_true": tf.ones((3, 1)), "y_pred": tf.zeros((3, 1))}
    exec(BLOCKS[2], names)


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
