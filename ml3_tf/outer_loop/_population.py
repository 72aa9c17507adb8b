"""Learners that live on from one step of `fit` to the next."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch
from ml3_tf.inner_loop import LearnerState, are_finite, expand_like


def stream(seed: int | None, number: int) -> keras.random.SeedGenerator:
    """Returns a generator of seeds that shares none with that of the learners, which has the number 0."""
    return keras.random.SeedGenerator(None if seed is None else seed + number * 2**28)


class Kept:
    """A structure of tensors that outlives the graph which computed it.

    Attributes:
        tracked: What `tf.train.Checkpoint` saves. A resumed run fills the variables as soon as they are made.
    """

    def __init__(self) -> None:
        self.tracked: Any = tf.Module()
        self.tracked.leaves = []
        self._pack: Callable[[list[tf.Variable]], Any] | None = None

    @property
    def values(self) -> Any:
        """The structure of `tf.Variable`; `None` as long as nothing was kept."""
        return self._pack and self._pack(list(self.tracked.leaves))

    def prepare(self, values: Any) -> None:
        """Makes variables of zeros, unless those that are there have the shapes of `values`."""
        shapes = lambda structure: tf.nest.map_structure(lambda value: value.shape, structure)
        if self._pack is None or shapes(self.values) != shapes(values):
            if self.tracked.leaves:
                self.tracked.leaves = []
            with tf.init_scope():
                for value in tf.nest.flatten(values):  # appended: a resumed run waits for the items of this list
                    self.tracked.leaves.append(tf.Variable(tf.zeros(value.shape, value.dtype), trainable=False))
            template = tf.nest.map_structure(lambda _: None, values)
            self._pack = lambda leaves: tf.nest.pack_sequence_as(template, leaves)

    def assign(self, values: Any) -> None:
        """Keeps `values`."""
        self.prepare(values)
        tf.nest.map_structure(lambda kept, value: kept.assign(value), self.values, values)


class Population:
    """Learners that live on from one step of `fit` to the next, each with its task, its age and its life.

    Args:
        lives: The number of steps that learners live for; of two numbers, it is drawn between them, log-uniformly.
        steps: Number of steps that the learners take between two calls of `renew`.
        num_groups: The N learners are so many groups one after the other. The first learners of all groups live and die
            together, then the second, and so on.
        seed: Optional integer that determines the lives.

    Raises:
        ValueError: `lives` below `steps`, or in descending order.
    """

    def __init__(self, lives: int | tuple[int, int], *, steps: int, num_groups: int, seed: int | None) -> None:
        shortest, longest = lives if isinstance(lives, tuple) else (lives, lives)
        if not steps <= shortest <= longest:
            raise ValueError(
                "`lives` must be a number of steps, or two in ascending order, not below `inner_steps`. Received: "
                f"lives={lives}, inner_steps={steps}"
            )
        self.shortest: int = shortest
        self.longest: int = longest
        self._steps, self._num_groups = steps, num_groups
        self.seeds: keras.random.SeedGenerator = stream(seed, 2)
        self.kept: Kept = Kept()

    @property
    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"lives": [self.seeds.state.value], "kept": self.kept.tracked}

    def renew(self, fresh: LearnerState, batch: Batch) -> tuple[LearnerState, Batch]:
        """Replaces learners at the end of their lives by fresh ones with their tasks in `batch`; at first, all.

        The first lives are cut at random, so that they do not all end together.
        """
        num_tasks, groups = fresh.age.shape[0], self._num_groups
        uniform = lambda: keras.random.uniform((num_tasks // groups,), seed=self.seeds)
        life = self.shortest * (self.longest / self.shortest) ** uniform()
        life, part = (tf.tile(values, [groups]) for values in (life, uniform()))
        self.kept.prepare((fresh, batch, life))
        learners, old_batch, left = tf.nest.map_structure(tf.convert_to_tensor, self.kept.values)
        has_started = tf.reduce_any(learners.age > 0)
        goes_on = left > 0
        left = tf.where(goes_on, left, tf.where(has_started, life, part * life))
        choose = lambda old, new: tf.where(expand_like(goes_on, new), old, new)
        learners, batch = tf.nest.map_structure(choose, (learners, old_batch), (fresh, batch))
        self.kept.assign((learners, batch, left))
        return learners, batch

    def keep(self, learners: LearnerState) -> None:
        """Keeps the learners after their steps. Those that have diverged have no steps left."""
        _, batch, left = tf.nest.map_structure(tf.convert_to_tensor, self.kept.values)
        groups = tf.reduce_all(tf.reshape(are_finite(learners), [self._num_groups, -1]), axis=0)
        left = tf.where(tf.tile(groups, [self._num_groups]), left - self._steps, 0.0)
        self.kept.assign((learners, batch, left))
