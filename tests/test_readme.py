"""The examples of the README and the guides run as they stand, but for the number of steps; all links resolve."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import ml3_tf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "recipes/*.md", "serving/*.md", "savedmodels/*/README.md")
    for page in ROOT.glob(pattern)
)


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = blocks_of("README.md")


def test_the_twenty_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, names = BLOCKS[0], {}
    for long, short in (
        ("steps_per_execution=100", "steps_per_execution=2"),
        ("steps_per_epoch=500, epochs=4", "steps_per_epoch=2, epochs=1, verbose=0"),
    ):
        assert long in code
        code = code.replace(long, short)
    exec(code, names)
    x = np.linspace(-1, 1, 10).reshape(-1, 1)
    names["model"].fit(x, np.sin(x), verbose=0)
    assert (tmp_path / "my_loss" / "1" / "saved_model.pb").is_file()

    names |= {"x": x, "y": np.sin(x)}
    exec(BLOCKS[1].replace("epochs=100", "epochs=2, verbose=0"), names)


def test_the_guide_learns_a_loss_on_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [code, of_tasks] = blocks_of("docs/guides/own_tables.md")
    assert "steps_per_epoch=50, epochs=4)" in code and len(code.splitlines()) <= 40
    names = {}
    exec(code.replace("steps_per_epoch=50, epochs=4)", "steps_per_epoch=2, verbose=0)"), names)
    assert ml3_tf.load_meta_loss(tmp_path / "my_loss").base.name == "mean_squared_error"
    names = {}
    exec(of_tasks, names)
    assert tuple(next(iter(names["tasks"]))["minibatches"].shape) == (8, 40, 50)


def test_the_guide_adapts_a_loss_to_one_data_set():
    [code] = blocks_of("docs/guides/one_data_set.md")
    names = {}
    exec(code, names)
    scores = [snapshot["meta_loss"] for snapshot in names["adapt"].snapshots]
    assert scores[-1] < scores[0]


def test_the_guide_to_wrong_labels_learns_a_loss():
    [code] = blocks_of("docs/guides/wrong_labels.md")
    assert "steps_per_epoch=10, epochs=10)" in code
    names = {}
    exec(code.replace("steps_per_epoch=10, epochs=10)", "steps_per_epoch=2, epochs=1, verbose=0)"), names)
    y = np.eye(5, dtype="float32")[names["labels"]]
    before = names["loss"].base.get_config()
    assert before["q"] != 0.8 and before["prior_count"] != 5.0  # they are learned
    history = names["model"].fit(names["x"], y, batch_size=100, epochs=2, verbose=0).history["loss"]
    assert history[1] < history[0]


def test_the_guide_to_failures_shows_what_is_printed(capsys):
    page = "docs/guides/when_it_fails.md"
    [code] = blocks_of(page)
    exec(code, {})
    printed = " ".join(capsys.readouterr().out.split())
    [shown] = re.findall(r"```text\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    for part in re.split(r"[\d.]+e-\d+", " ".join(shown.split())):  # the numbers hang on the draw
        assert part in printed


def test_the_guide_looks_inside_a_loss(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [code] = blocks_of("docs/guides/look_inside.md")
    exec(code, {})
    assert "loss ≈ 1580·log cosh(e/4)" in capsys.readouterr().out
    assert "loss ≈ 1580·log cosh(e/4)" in (ROOT / "docs/guides/use_a_loss.md").read_text(encoding="utf-8")
    assert (tmp_path / "loss.png").stat().st_size > 10_000


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
{blocks_of("docs/guides/save_and_serve.md")[-1]}
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
    """Step by step with Keras alone, then the same by `meta_test_in_env` for four policies at once."""
    keras.utils.set_random_seed(0)
    by_hand, by_function = blocks_of("docs/guides/policies.md")
    names = {}
    exec(by_hand, names)
    distances = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()[-10:]]
    assert distances[0] > 1.0 and distances[-1] < 0.1
    exec(by_function, names)
    final_positions = names["rollouts"].observations[-1, :, -1, 0]
    np.testing.assert_allclose(final_positions, 0.5, atol=0.1)


@pytest.mark.parametrize("number", [0, 1], ids=["pendulum", "reacher"])
def test_the_guide_learns_in_environments_of_the_reader(number, tmp_path, monkeypatch):
    """At toy size; the two blocks stand alone."""
    monkeypatch.chdir(tmp_path)
    code = blocks_of("docs/guides/own_environment.md")[number]
    code, num_changes = re.subn(r"(INNER_STEPS, OUTER_STEPS) = .*", r"\1 = 4, 10, 2, 2", code)
    assert num_changes == 1
    names = {}
    exec(code, names)
    assert np.isfinite(names["result"].deterministic_returns).all()
    [export] = tmp_path.glob("*_loss")
    loaded = ml3_tf.load_meta_loss(export)
    assert loaded.features == names["trainer"].meta_loss.features


def test_the_guide_collects_from_processes_what_one_process_collects(capsys):
    code = blocks_of("docs/guides/own_environment.md")[2]
    in_one = code.replace("AsyncVectorEnv", "SyncVectorEnv").replace(', context="spawn"', "")
    assert in_one.count("SyncVectorEnv([make] * NUM_ENVS)") == 1
    for program in (code, in_one):
        keras.utils.set_random_seed(0)
        exec(program, {"__name__": "__main__"})
    *received, expected = capsys.readouterr().out.splitlines()
    assert received == [expected] and len(expected.split()) >= 4


@pytest.mark.parametrize("name", ml3_tf.list_meta_losses().names)
def test_the_code_of_a_card_runs(name):
    """With fewer updates; those that only compile a model are given one."""
    [code] = blocks_of(f"savedmodels/{name}/README.md")
    code, num_changes = re.subn(r"(UPDATES|num_steps|epochs)( ?= ?)\d+", r"\1\g<2>2", code)
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2, "softmax")])
    names = {"keras": keras, "ml3_tf": ml3_tf, "model": model, "num_classes": 2}
    exec(code, names)
    if not num_changes:
        assert names["model"].loss.name == name
    elif "meta_test_in_env" in code:
        assert np.isfinite(names["rollouts"].observations).all() and len(names["rollouts"].rewards) == 3
    elif "meta_test_on_policy" in code:
        assert np.isfinite(names["adaptation"].deterministic_returns).all()
        assert len(names["adaptation"].returns) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in re.findall(r"\]\((?!http)([^)#\s]+)\)", text)]
    named = re.findall(r"`((?:ml3_tf|recipes|benchmarks|examples|tools)/[\w/.]+)`", text)
    missing = [str(path) for path in [*links, *(ROOT / path for path in named)] if not path.exists()]
    assert missing == []


def test_the_readme_is_short_and_points_on():
    assert len(README.splitlines()) <= 130
    assert len(re.findall(r"\]\((?!http)", README)) > 15


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
