"""Where a run is in its dataset of tasks."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf


class Position:
    """Follows the iterators of a dataset, and brings those of a new run to where they were.

    What `tf.data` can save is saved: buffers of a shuffle, random seeds, counters. A Python generator cannot be: its
    batches are drawn once more and dropped, so it must give the same ones in each run.

    Args:
        dataset: The dataset that `fit` is given.
        name: The name of that argument.

    Attributes:
        dataset: The dataset.
        iterator: The iterator that is read; `None` before the first batch.
    """

    def __init__(self, dataset: tf.data.Dataset, name: str) -> None:
        self.dataset: tf.data.Dataset = dataset
        self._name = name
        self.iterator: Any = None
        self._passes = self._drawn = 0  # iterators before this one, and batches drawn from it
        self._move: Any = None

    def draw(self, iterator: Any, count: int) -> None:
        """Takes note that `count` batches are drawn from an iterator; a resumed run first moves it."""
        if self.iterator is not None and iterator is not self.iterator:
            self._passes, self._drawn = self._passes + 1, 0
        self.iterator = iterator
        if self._move is not None:
            self._move(iterator)
            self._move = None
        self._drawn += count

    @functools.cached_property
    def is_savable(self) -> bool:
        """Whether the iterator can be saved.

        Raises:
            ValueError: The dataset draws random numbers by operations whose state cannot be saved.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                tf.train.Checkpoint(iterator=self.iterator).write(str(Path(folder, "probe")))
            except tf.errors.FailedPreconditionError as error:
                if "PyFunc" in error.message:
                    return False
                raise ValueError(
                    f"`{self._name}` cannot be resumed: {error.message.split('}} ')[-1]} Expected a dataset that draws "
                    "by `tf.random.stateless_uniform` and its kind, from the seeds of `tf.data.Dataset.random` or "
                    "`counter`, as `ml3_tf.sine_tasks` does."
                ) from None
        return True

    def to_config(self) -> dict[str, Any]:
        """Returns what is to be kept beside the iterator."""
        return {"passes": self._passes, "drawn": self._drawn}

    def restore(self, path: str, config: dict[str, int], *, key: str | None, is_within: bool) -> None:
        """Moves the dataset to where another run was.

        Args:
            path: The checkpoint of `tf.train.Checkpoint`.
            config: What `to_config` returned.
            key: The attribute of the checkpoint that holds the iterator; `None`: it could not be saved.
            is_within: Whether the new run goes on with that iterator, or begins the one after it.
        """
        self._passes, self._drawn = config["passes"], config["drawn"]
        if key is None:
            self._move = self._draw_again
        else:
            self._move = lambda iterator: tf.train.Checkpoint(**{key: iterator}).restore(path).expect_partial()
        if not is_within:
            # All that the iterators of a dataset share, such as the seeds of a shuffle, moves with any of them.
            self.draw(iter(self.dataset), 0)

    def _draw_again(self, iterator: Any) -> None:
        for _ in range(self._passes):
            for _ in self.dataset:
                pass
        for _ in range(self._drawn):
            next(iterator)
