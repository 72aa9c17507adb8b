"""Tests of `ml3_tf.outer_loop._position`: iterators that go on where others were."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.outer_loop._position import Position

NUMBERS = tf.data.Dataset.range(6)


def generated():
    return tf.data.Dataset.from_generator(lambda: iter(range(6)), output_signature=tf.TensorSpec((), tf.int64))


DATASETS = {
    "counter": lambda: tf.data.Dataset.counter(),
    "shuffled": lambda: NUMBERS.shuffle(6, seed=1).repeat(),
    "shuffled without a seed": lambda: NUMBERS.shuffle(6).repeat(),
    "random": lambda: tf.data.Dataset.random(rerandomize_each_iteration=True).prefetch(2),
    "generated": generated,
}


def draw(position, iterator, count):
    position.draw(iterator, count)
    return [int(next(iterator)) for _ in range(count)]


def save(position, folder):
    """Returns the arguments of `restore`."""
    path = tf.train.Checkpoint(**({"tasks": position.iterator} if position.is_savable else {})).write(
        str(folder / "it")
    )
    return path, position.to_config(), "tasks" if position.is_savable else None


@pytest.mark.parametrize("name", DATASETS)
def test_an_iterator_goes_on(tmp_path, name):
    position, iterator = Position(dataset := DATASETS[name](), "tasks"), iter(dataset)
    draw(position, iterator, 2)
    assert position.is_savable == (name != "generated")
    path, config, key = save(position, tmp_path)
    assert config == {"passes": 0, "drawn": 2}
    rest = draw(position, iterator, 3)
    other = Position(dataset := DATASETS[name](), "tasks")
    other.restore(path, config, key=key, is_within=True)
    assert draw(other, iter(dataset), 3) == rest
    assert other.to_config() == {"passes": 0, "drawn": 5}


@pytest.mark.parametrize("make", [lambda: NUMBERS.shuffle(6, seed=1), generated], ids=["shuffled", "generated"])
def test_the_next_pass_begins_as_it_would_have(tmp_path, make):
    position = Position(dataset := make(), "tasks")
    passes = [draw(position, iter(dataset), 6) for _ in range(2)]
    path, config, key = save(position, tmp_path)
    assert config == {"passes": 1, "drawn": 6}
    third = draw(position, iter(dataset), 6)
    other = Position(dataset := make(), "tasks")
    other.restore(path, config, key=key, is_within=False)
    assert draw(other, iter(dataset), 6) == third
    assert other.to_config() == {"passes": 2, "drawn": 6}
    if key is not None:
        assert len({tuple(numbers) for numbers in (*passes, third)}) == 3


def test_random_operations_without_a_state_are_refused():
    dataset = NUMBERS.map(lambda _: tf.random.uniform(()))
    position = Position(dataset, "validation_data")
    next(iterator := iter(dataset))
    position.draw(iterator, 1)
    with pytest.raises(ValueError, match="`validation_data` cannot be resumed: RandomUniform is stateful.*stateless"):
        position.is_savable  # noqa: B018


def test_what_was_drawn_is_counted_for_each_pass():
    position = Position(NUMBERS, "tasks")
    first, second = iter(NUMBERS), iter(NUMBERS)
    for iterator, count in ((first, 2), (first, 1), (second, 4)):
        position.draw(iterator, count)
    assert position.to_config() == {"passes": 1, "drawn": 4}
    assert position.iterator is second
    np.testing.assert_array_equal(next(second), 0)  # it only counts
