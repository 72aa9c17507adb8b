"""Tests of `ml3_tf.outer_loop._run`: a run that was interrupted ends as one that was not, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import resumed_runs
import tensorflow as tf
from resumed_runs import KINDS, make_trainer, phi_of, result_of, run, sines

import ml3_tf

REPOSITORY = Path(__file__).parents[2]


class Interruption(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    """Ends a run in its n-th step, before that step is saved; `None`: never."""

    def __init__(self, step):
        super().__init__()
        self._left = [step or -1]  # its own list, so that it is no state of the run

    def get_state(self):
        return None

    def set_state(self, state):
        pass

    def on_train_batch_end(self, batch, logs=None):
        self._left[0] -= 1
        if self._left[0] == 0:
            raise Interruption


def run_interrupted(kind, folder, steps, **arguments):
    for step in steps:
        with pytest.raises(Interruption):
            run(kind, folder, Interrupt(step), **arguments)
    return run(kind, folder, Interrupt(None), **arguments)


# Without marks: a stream, a pass over shuffled tasks, and learners that live on.
QUICK = "adam", "pass", "lives"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.long) for kind in KINDS if kind != "unseeded_pass"],
)
def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path, kind):
    whole = run(kind, tmp_path / "whole", Interrupt(None))
    interrupted = run_interrupted(kind, tmp_path / "interrupted", [4, 3])
    assert result_of(*interrupted) == result_of(*whole)
    assert interrupted[1].epoch == whole[1].epoch


def test_an_order_that_no_seed_determines_goes_on_too(tmp_path):
    trainer, history = run_interrupted("unseeded_pass", tmp_path, [4])
    assert len(history.epoch) == 3 and np.isfinite(history.history["loss"]).all()
    assert int(trainer.optimizer.iterations) == 2 * 15  # two outer steps in each of the 5 batches of 3 passes


@pytest.mark.long
@pytest.mark.parametrize("steps", [[5], [6, 5]], ids=["at the end of an epoch", "in the next, and again"])
def test_without_saves_within_an_epoch_its_begin_is_resumed(tmp_path, steps):
    whole = run("adam", tmp_path / "whole", Interrupt(None))
    interrupted = run_interrupted("adam", tmp_path / "interrupted", steps, save_freq=None)
    assert result_of(*interrupted) == result_of(*whole)


def test_saving_changes_nothing(tmp_path):
    make, tasks, arguments = KINDS["adam"]
    trainer, _ = make()
    history = trainer.fit(tasks(), epochs=3, verbose=0, **arguments)
    assert result_of(trainer, history) == result_of(*run("adam", tmp_path))


def test_a_run_that_has_ended_is_not_repeated(tmp_path):
    first = run("early_stopping", tmp_path, epochs=8)
    again = run("early_stopping", tmp_path, epochs=8)
    assert result_of(*again) == result_of(*first)
    assert int(again[0].optimizer.iterations) == int(first[0].optimizer.iterations)


def test_with_more_epochs_a_run_goes_on(tmp_path):
    run("adam", tmp_path, epochs=2)
    trainer, history = run("adam", tmp_path, epochs=3)
    assert history.epoch == [0, 1, 2] and len(history.history["loss"]) == 3
    assert int(trainer.optimizer.iterations) == 2 * 4 * 3


def test_fewer_epochs_leave_what_is_saved(tmp_path):
    with pytest.raises(Interruption):
        run("adam", tmp_path, Interrupt(7))
    run("adam", tmp_path, Interrupt(None), epochs=1)
    whole = run("adam", tmp_path / "whole", Interrupt(None))
    assert result_of(*run("adam", tmp_path, Interrupt(None))) == result_of(*whole)


def test_a_resumed_run_starts_where_it_was_whatever_the_first_epoch(tmp_path):
    fit = lambda trainer, folder, **epochs: trainer.fit(
        sines(), steps_per_epoch=2, callbacks=[Interrupt(None)], resume=folder, verbose=0, **epochs
    )
    trainer = make_trainer()
    assert fit(trainer, tmp_path, initial_epoch=1, epochs=3).epoch == [1, 2]
    assert fit(make_trainer(), tmp_path, initial_epoch=1, epochs=4).epoch == [1, 2, 3]
    assert fit(make_trainer(), tmp_path, initial_epoch=5, epochs=5).epoch == [1, 2, 3, 4]


def test_resume_is_short_for_the_callback(tmp_path):
    for epochs in (1, 2):
        trainer = make_trainer()
        history = trainer.fit(sines(), steps_per_epoch=2, epochs=epochs, verbose=0, resume=tmp_path)
    assert history.epoch == [0, 1]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"seed": 1}, ["seed: 0 there, 1 here"]),
        ({"unroll": 4}, ["unroll: 2 there, 4 here"]),
        ({"lives": 8}, ["lives: None there, 8 here", "state"]),
        ({"inner_optimizer": "adam"}, ["inner_optimizer: .*SGD.* there, .*Adam.* here"]),
        ({"steps_per_epoch": 3}, ["steps_per_epoch: 2 there, 3 here"]),
        ({"tasks": ml3_tf.sine_tasks(3, num_support=7)}, ["tasks: .*5, 1.* there, .*7, 1.* here"]),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, ["callbacks: .* there, .*'TerminateOnNaN'.* here"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_settings_are_refused_by_name(tmp_path, changes, names):
    arguments = {"steps_per_epoch": 2, "tasks": sines(), "callbacks": None}
    make_trainer().fit(**arguments, resume=tmp_path, verbose=0)
    arguments |= {name: changes[name] for name in changes if name in arguments}
    trainer = make_trainer(**{name: value for name, value in changes.items() if name not in arguments})
    before = phi_of(trainer)
    with pytest.raises(ValueError, match=f"holds a run of other settings.*Different are {names[0]}"):
        trainer.fit(**arguments, resume=tmp_path, verbose=0)
    for old, new in zip(before, phi_of(trainer)):
        np.testing.assert_array_equal(old, new)


def test_the_progress_bar_stands_where_the_run_does(tmp_path, capsys):
    with pytest.raises(Interruption):
        run("adam", tmp_path, Interrupt(3))
    capsys.readouterr()
    run("adam", tmp_path, Interrupt(None), epochs=1, verbose=1)
    shown = capsys.readouterr().out
    assert "3/4" in shown and "4/4" in shown and "1/4" not in shown and "2/4" not in shown


@pytest.mark.long
@pytest.mark.parametrize("kind", ["adam", "lives", "estimator", "model_based", "model_free"])
def test_all_that_a_step_moves_is_saved(kind):
    """What the graph of a step holds and no state names would differ in a resumed run."""
    make, tasks, arguments = KINDS[kind]
    trainer, own = make()
    trainer.fit(tasks(), epochs=1, callbacks=own, verbose=0, **arguments)
    step = tf.function(trainer.train_step, autograph=False).get_concrete_function(tasks().element_spec)
    state = {id(variable) for part in trainer.training_state.values() for variable in getattr(part, "variables", part)}
    state |= {id(variable.value) for callback in own for variable in callback.dynamics.variables}  # its own state
    before = {id(v): v.numpy() for v in step.graph.variables}
    trainer.fit(tasks(), epochs=1, callbacks=own, verbose=0, **arguments)
    moved = [v for v in step.graph.variables if not np.array_equal(before[id(v)], v.numpy())]
    assert [v.name for v in moved if id(v) not in state] == []
    assert len(moved) > 5


# Programs that are killed.


def start(kind, folder):
    return subprocess.Popen(
        [sys.executable, resumed_runs.__file__, folder, kind],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(process, number):
    for _ in range(number):
        assert process.stdout.readline() == "step\n", process.stderr.read()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["adam", "model_based"])
def test_a_killed_program_goes_on(tmp_path, kind):
    whole = start(kind, tmp_path / "whole")
    generator = random.Random(kind)
    for _ in range(2):
        killed = start(kind, tmp_path / "killed")
        wait_for_steps(killed, generator.randint(2, 4))
        time.sleep(generator.uniform(0, 0.05))  # within a step, or a save
        killed.kill()
        killed.communicate()
    outputs = [process.communicate() for process in (whole, start(kind, tmp_path / "killed"))]
    results = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    assert results[0] == results[1]
    assert len(results[0]["curves"]["loss"]) == 3


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(tmp_path, number):
    process = start("adam", tmp_path)
    wait_for_steps(process, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert f"Meta-training is saved in '{tmp_path}'. Run the same command again to go on from there." in errors
    trainer, history = run("adam", tmp_path / "whole", resumed_runs.Tell())
    assert result_of(*run("adam", tmp_path, resumed_runs.Tell())) == result_of(trainer, history)
