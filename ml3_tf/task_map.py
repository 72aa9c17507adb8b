"""A function of one task, applied to many."""

import tensorflow as tf


def map_over_tasks(function, inputs, vectorised=True):
    """Applies a pure function of one task to `N` tasks.

    Args:
        function: Function of a structure of tensors `[...]`, returning a structure of tensors `[...]`.
        inputs: The same structure of tensors `[N, ...]`; N is static.
        vectorised: Whether to run each operation for all tasks at once. Otherwise the tasks are laid out in the graph
            one after the other, which any operation, its derivatives and XLA can cope with.

    Returns:
        The results, `[N, ...]`, with static shapes.

    Example:

    >>> numbers = tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])
    >>> map_over_tasks(lambda pair: pair[0] * pair[1], numbers).numpy().tolist()
    [3.0, 8.0]
    """
    num_tasks = tf.nest.flatten(inputs)[0].shape[0]
    if vectorised and num_tasks > 1:  # for one task the vectorised form has no static shapes, which XLA needs
        results = tf.vectorized_map(function, inputs, warn=False)
        return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [num_tasks, *t.shape[1:]]), results)
    tasks = [function(tf.nest.map_structure(lambda t, n=n: t[n], inputs)) for n in range(num_tasks)]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *tasks)
