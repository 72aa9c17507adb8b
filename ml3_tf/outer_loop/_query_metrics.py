"""The metrics of learners on query points, for one output or for several.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import keras
import tensorflow as tf

MetricLike: TypeAlias = keras.metrics.Metric | str
MetricsLike: TypeAlias = (
    Sequence[MetricLike] | Mapping[str, MetricLike | Sequence[MetricLike]] | Sequence[Sequence[MetricLike]]
)
"""A list; for learners with several outputs a mapping from their names, or a list of lists in their order."""


class QueryMetrics:
    """The metrics that `compile` of a trainer was given.

    Args:
        metrics: A list of Keras metrics or their names. For learners with several outputs a mapping from the name of an
            output to one or several, or a list of lists in the order of the outputs; then each is called
            `OUTPUT_METRIC`. `None`: there are none.

    Raises:
        ValueError: A name that is ambiguous; when they are updated: outputs of another form.

    Example:

    >>> [metric.name for metric in QueryMetrics({"kind": "categorical_accuracy", "box": ["mse", "mae"]}).metrics]
    ['kind_categorical_accuracy', 'box_mean_squared_error', 'box_mean_absolute_error']
    """

    def __init__(self, metrics: MetricsLike | None = None) -> None:
        given: Any = metrics or []
        is_several = isinstance(given, Mapping) or any(isinstance(part, (list, tuple)) for part in given)
        parts = given.items() if isinstance(given, Mapping) else enumerate(given) if is_several else [(None, given)]
        self._of_heads: list[tuple[Any, keras.metrics.Metric]] = [
            (head, get_metric(metric) if head is None else _renamed(get_metric(metric), head))
            for head, part in parts
            for metric in (part if isinstance(part, (list, tuple)) else [part])
        ]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [metric for _, metric in self._of_heads]

    def update(self, y: Any, y_pred: Any, weights: tuple[Any, ...] = ()) -> None:
        """Updates all metrics.

        Args:
            y: Targets `[N, B, ...]`; of several outputs, a structure of them.
            y_pred: Predictions, in the form of `y`.
            weights: One more such structure of sample weights, or none.
        """
        merge_tasks = lambda values: tf.reshape(values, [-1, *values.shape[2:]])  # [N, B, ...] -> [N * B, ...]
        for head, metric in self._of_heads:
            parts = [y_pred] if head is None else _heads(y_pred)
            if (head is None) != tf.is_tensor(y_pred) or (head is not None and head not in parts):
                of = "one output" if head is None else repr(head)
                outputs = "one output" if tf.is_tensor(y_pred) else f"the outputs {list(_heads(y_pred))}"
                raise ValueError(
                    "`metrics` of a learner with one output are a list; with several, a mapping from their names (or a "
                    f"list of lists in their order). Received: metrics of {of} for a learner with {outputs}"
                )
            own = (y, y_pred, *weights) if head is None else [values[head] for values in (y, y_pred, *weights)]
            metric.update_state(*map(merge_tasks, own))


def get_metric(metric: MetricLike) -> keras.metrics.Metric:
    """Returns a metric by its name, unless that is ambiguous."""
    if metric in ("accuracy", "acc"):
        raise ValueError(
            f"Which accuracy? Received: metrics=[{metric!r}]. Expected 'binary_accuracy', 'categorical_accuracy' or "
            "'sparse_categorical_accuracy'."
        )
    return cast(keras.metrics.Metric, keras.metrics.get(metric))


def _renamed(metric: keras.metrics.Metric, head: Any) -> keras.metrics.Metric:
    """Two outputs may have the same metric."""
    return metric.__class__.from_config({**metric.get_config(), "name": f"{head}_{metric.name}"})


def _heads(y_pred: Any) -> Any:
    return y_pred if isinstance(y_pred, Mapping) else range(len(y_pred))
