"""What learning a loss costs, beside what one use of it saves.

CPU time is counted in core-minutes: minutes of one core, over all threads of the process. Processes of workers are not
counted, nor is a GPU. It differs a little from run to run, so it is not among the metrics, but in "costs" of a result::

    {"core_minutes": {"meta_train": 1.5, "learned": 0.01, "baseline": 0.02}, "samples": {... the same ...}}

"learned" and "baseline" are the cost of one use: training one learner until it reaches the level that the baseline has
at the horizon, the number of steps that the loss was learned for. They are `None` where that level is never reached.
"samples" are environment steps; only recipes of policies have them. A baseline that learns in a model may take none
for a use, but needs the model.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import gymnasium
import keras
import numpy as np


class CoreMinutes(keras.callbacks.Callback):
    """Measures the CPU time of a trainer's `fit`, with compiling, in core-minutes.

    It counts from when it is made, so make it just before `fit`, and read `total` just after. Its sum is saved with the
    run: `fit(resume=folder)` goes on with it, so that an interrupted run counts every step once. One for several fits
    in a row counts them all.

    Example:

    >>> import ml3_tf
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp())
    >>> trainer.compile(inner_optimizer="sgd")
    >>> cost = CoreMinutes()
    >>> history = trainer.fit(ml3_tf.sine_tasks(), steps_per_epoch=2, callbacks=[cost], verbose=0)
    >>> 0 < cost.total < 10
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self._before = 0.0  # core-minutes of the run that this one goes on with
        self._start = process_time()

    @property
    def total(self) -> float:
        """Core-minutes until now."""
        return self._before + (process_time() - self._start) / 60

    def get_state(self) -> float:
        """Returns what is saved with the run."""
        return self.total

    def set_state(self, state: float) -> None:
        """Goes on with the sum of the run before. The time since this one began counts, too."""
        self._before = state


def core_minutes_per_step(train: Callable[[], Any], num_steps: int, num_learners: int) -> float:
    """Returns the core-minutes of one gradient step of one learner.

    Args:
        train: Trains all learners for all steps. It is called twice: the first time may compile, the second is
            measured. Where it also scores the learners after each step, that is part of the cost, for all methods.
        num_steps: Number of its gradient steps.
        num_learners: Number of its learners.
    """
    train()
    start = process_time()
    train()
    return (process_time() - start) / 60 / (num_steps * num_learners)


class UpdateClock(gymnasium.vector.VectorWrapper):
    """Environments that tell the core-minutes of an update of one policy, where each training compiles anew.

    They are reset for each rollout, and so once an update. The cost is the median over updates, without the first one,
    which compiles. The rollout is part of it, for all methods.

    Args:
        env: The environments, one for each policy.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        super().__init__(env)
        self._times: list[float] = []

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Notes the time, and begins new episodes."""
        self._times.append(process_time())
        return self.env.reset(**arguments)

    @property
    def core_minutes(self) -> float:
        """Core-minutes of an update of one policy, after at least three rollouts."""
        return float(np.median(np.diff(self._times[1:]))) / 60 / self.num_envs


def steps_to_level(errors: Sequence[float], level: float) -> int | None:
    """Returns the first step after which the error is at most `level`, or `None` if it never is.

    Args:
        errors: The error before the first step and after each, `[steps + 1]`. NaN reaches no level.
        level: The error to reach.

    Example:

    >>> steps_to_level([4.0, 3.0, 2.0, 1.0], 2.5)
    2
    >>> steps_to_level([4.0, 3.0], 2.5)
    """
    reached = np.flatnonzero(np.asarray(errors) <= level)
    return int(reached[0]) if reached.size else None


def count_core_minutes(
    meta_train: float, *, curves: Mapping[str, Sequence[float]], per_step: Mapping[str, float], horizon: int
) -> dict[str, float | None]:
    """Returns the "core_minutes" of a seed's costs.

    Args:
        meta_train: Core-minutes of meta-training.
        curves: "learned" and "baseline" -> errors `[steps + 1]` on the same tasks; the longer the curve of the learned
            loss is, the later it may reach the level.
        per_step: "learned" and "baseline" -> core-minutes of a step of one learner.
        horizon: The step at which the error of the baseline is the level.

    Example:

    >>> curves = {"learned": [4.0, 1.0, 0.5], "baseline": [4.0, 3.0, 2.0]}
    >>> count_core_minutes(10.0, curves=curves, per_step={"learned": 0.2, "baseline": 0.25}, horizon=2)
    {'meta_train': 10.0, 'learned': 0.2, 'baseline': 0.5}
    """
    level = curves["baseline"][horizon]
    steps = {name: steps_to_level(curves[name], level) for name in ("learned", "baseline")}
    uses = {name: None if number is None else number * per_step[name] for name, number in steps.items()}
    return {"meta_train": meta_train, **uses}


def break_even(meta_train: float, baseline: float | None, learned: float | None) -> int | None:
    """Returns after how many uses meta-training has paid for itself, or `None` if it never does.

    Args:
        meta_train: Cost of meta-training.
        baseline: Cost of one use of the baseline. `None`: it never reaches the level, so the first use pays.
        learned: Cost of one use of the learned loss. `None`: it never reaches the level.

    Example:

    >>> break_even(10.0, 0.5, 0.2)
    34
    >>> break_even(10.0, 0.2, 0.5)
    """
    if learned is None:
        return None
    if baseline is None:
        return 1
    if learned >= baseline:
        return None
    return max(math.ceil(meta_train / (baseline - learned)), 1)
