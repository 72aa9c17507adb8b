"""How models train in the benchmark: all losses and optimizers take this path.

Shape letters: P problems of a task, R rates, N = P R learners, B examples.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import LossLike
from ml3_tf.bench.task import NUM_CHECKS, Problems, Task, draw_order, measure
from ml3_tf.inner_loop import InnerLoop, LearnerState
from ml3_tf.learner import Learner, Parameters

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "SGD": lambda: keras.optimizers.SGD(1.0),
    "Adam": lambda: keras.optimizers.Adam(1.0),
    "AdamW": lambda: keras.optimizers.AdamW(1.0),
    "Muon": lambda: keras.optimizers.Muon(1.0, exclude_layers=["output"]),  # Adam there, and for biases
}


class Training:
    """Trains the models of a task with one loss and one optimizer, for any seeds and rates; it is compiled once.

    A step is that of `compile(optimizer, loss)` and `train_on_batch`, see `ml3_tf.meta_test`.

    Args:
        task: The `Task`.
        loss: A loss of Keras or a `MetaLoss`.
        optimizer: A key of `OPTIMIZERS`.
        jit_compile: Whether to compile with XLA.
    """

    def __init__(self, task: Task, loss: LossLike, optimizer: str, *, jit_compile: bool = True) -> None:
        self.task: Task = task
        self._learner = Learner(task.build)
        self._loop = InnerLoop(self._learner, loss, OPTIMIZERS[optimizer]())
        names = [slot.name for slot in self._loop.optimizer.optimizer.variables]
        self._rate_slot = names.index("learning_rate")
        self._take_steps = self._loop.compile(self._train, jit_compile=jit_compile)
        self._examples = task.make_examples(self._loop.loss, self._loop.predict)
        predict = functools.partial(task.predict, self._loop.predict)
        self._predict = tf.function(predict, autograph=False, jit_compile=jit_compile)

    def run(self, rates: Sequence[float], *, seed: int, num_steps: int) -> np.ndarray:
        """Trains fresh models.

        Args:
            rates: `[R]`; each problem is trained at each rate.
            seed: Determines the data, the fresh models, and the order of the examples.
            num_steps: Number of gradient steps.

        Returns:
            Scores `[checks + 1, names, R]`, before the first step and after each tenth of the first horizon.
        """
        problems = self.task.draw(seed)
        num_problems = len(problems.num_support)
        order = draw_order(problems, self.task.batch_size, num_steps, np.random.default_rng(seed))
        repeat = lambda values: tf.repeat(tf.convert_to_tensor(values), len(rates), axis=0)
        fresh: Any = tf.nest.map_structure(repeat, self._learner.draw(num_problems, seed=seed))
        learners = self._loop.start(num_problems * len(rates), fresh)
        learners.slots[self._rate_slot] = tf.tile(tf.constant(rates, tf.float32), [num_problems])
        support, every = tf.nest.map_structure(repeat, problems.support), self.task.num_steps // NUM_CHECKS
        scores = [self._score(learners.parameters, problems, len(rates))]
        for first in range(0, num_steps, every):
            learners = self._take_steps(learners, support, repeat(order[:, first : first + every]))
            scores.append(self._score(learners.parameters, problems, len(rates)))
        return np.stack(scores)

    def run_choices(self, rates: Sequence[float], *, seed: int, num_steps: int) -> np.ndarray:
        """Trains fresh models, each problem at the rate of its own; `rates` holds one for each name.

        Returns:
            Scores `[checks + 1, names]`.
        """
        scores = self.run(sorted({*rates}), seed=seed, num_steps=num_steps)
        chosen = [sorted({*rates}).index(rate) for rate in rates]
        return np.stack([scores[:, name, choice] for name, choice in enumerate(chosen)], axis=-1)

    def _train(self, learners: LearnerState, support: Any, order: tf.Tensor) -> LearnerState:
        rows = lambda i: tf.nest.map_structure(lambda v: tf.gather(v, order[:, i], batch_dims=1), support)
        examples = lambda parameters, i: self._examples(parameters, rows(i))
        return self._loop.run(learners, examples, order.shape[1])

    def _score(self, parameters: Parameters, problems: Problems, num_rates: int) -> np.ndarray:
        """Scores `[names, R]`."""
        x = tf.repeat(tf.convert_to_tensor(problems.query[0]), num_rates, axis=0)
        y_pred = np.split(self._predict(parameters, x).numpy(), len(problems.num_query))
        scores = np.array(
            [
                [measure(self.task.kind, y[:number], one_rate[:number]) for one_rate in of_problem]
                for y, number, of_problem in zip(problems.query[1], problems.num_query, y_pred, strict=True)
            ]
        )
        return scores.reshape(len(self.task.names), -1, num_rates).mean(axis=1)
