"""Tests of what recipes count as costs. Clocks are made by hand: no test reads one."""

import gymnasium
import keras
import pytest
from resumed_runs import make_trainer, sines

import ml3_tf.envs  # noqa: F401 - registers the environments
from parts import costs


@pytest.fixture
def clock(monkeypatch):
    """A clock of the CPU, in seconds, that tests move."""
    now = {"seconds": 100.0}
    monkeypatch.setattr(costs, "process_time", lambda: now["seconds"])
    return now


@pytest.mark.parametrize(
    ("meta_train", "baseline", "learned", "uses"),
    [
        (10.0, 0.5, 0.25, 40),
        (10.1, 0.5, 0.25, 41),
        (0.1, 0.5, 0.25, 1),
        (10.0, 0.25, 0.5, None),
        (10.0, 0.5, 0.5, None),
        (10.0, 0.5, None, None),
        (10.0, None, 0.5, 1),
        (10.0, None, None, None),
        (0.0, 0.5, 0.25, 1),
    ],
    ids=["some", "rounded up", "at once", "dearer", "level", "never there", "the other never", "neither", "no cost"],
)
def test_break_even(meta_train, baseline, learned, uses):
    assert costs.break_even(meta_train, baseline, learned) == uses


def test_the_level_is_that_of_the_baseline_at_the_horizon():
    curves = {"learned": [9.0, 5.0, float("nan"), 2.0], "baseline": [9.0, 4.0, 3.0, 1.0]}
    per_step = {"learned": 0.1, "baseline": 1.0}
    counted = costs.count_core_minutes(7.0, curves=curves, per_step=per_step, horizon=2)
    assert counted == {"meta_train": 7.0, "learned": pytest.approx(0.3), "baseline": 2.0}
    assert costs.count_core_minutes(7.0, curves=curves, per_step=per_step, horizon=3)["learned"] is None


def test_a_baseline_that_is_there_early_is_counted_so():
    curves = {"learned": [1.0, 9.0, 9.0], "baseline": [9.0, 2.0, 3.0]}
    counted = costs.count_core_minutes(0.0, curves=curves, per_step={"learned": 1.0, "baseline": 1.0}, horizon=2)
    assert counted == {"meta_train": 0.0, "learned": 0.0, "baseline": 1.0}


def test_a_step_is_measured_without_compiling(clock):
    seconds = iter([1000.0, 120.0])

    def train():
        clock["seconds"] += next(seconds)

    assert costs.core_minutes_per_step(train, num_steps=5, num_learners=2) == pytest.approx(0.2)


def test_an_update_is_measured_without_compiling_where_each_training_compiles(clock):
    """Five rollouts of two policies: the first update compiles, the last one is disturbed."""
    env = costs.UpdateClock(gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=2, vectorization_mode="sync"))
    for seconds in (1000.0, 24.0, 24.0, 900.0, 0.0):
        observations, _ = env.reset()
        assert observations.shape == (2, 4)
        clock["seconds"] += seconds
    assert env.core_minutes == pytest.approx(0.2)


def test_an_interrupted_fit_goes_on_with_its_sum(clock, tmp_path):
    class Work(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            clock["seconds"] += 60.0
            if epoch == is_interrupted_at:
                raise KeyboardInterrupt

    def fit():
        cost = costs.CoreMinutes()
        make_trainer(seed=0).fit(
            sines(0), steps_per_epoch=2, epochs=3, callbacks=[Work(), cost], resume=tmp_path, verbose=0
        )
        return cost.total

    is_interrupted_at = 2
    with pytest.raises(KeyboardInterrupt):
        fit()
    clock["seconds"] = 0.0  # another process
    is_interrupted_at = None
    assert fit() == pytest.approx(3.0)  # and not the minute that was lost
    clock["seconds"] = 0.0
    assert fit() == pytest.approx(3.0)  # all of it was done


def test_one_counts_several_fits(clock, tmp_path):
    class Work(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            clock["seconds"] += 60.0

    def fit(num_fits):
        cost = costs.CoreMinutes()
        for number in range(num_fits):
            folder = tmp_path / str(number)
            make_trainer(seed=0).fit(
                sines(0), steps_per_epoch=2, epochs=2, callbacks=[Work(), cost], resume=folder, verbose=0
            )
        return cost.total

    assert fit(1) == pytest.approx(2.0)
    clock["seconds"] = 0.0
    assert fit(2) == pytest.approx(4.0)  # the first is over, the second begins
