"""The outer loop: the meta-gradient moves phi, the variables of the learned loss. Eq. 5 and 6 of ML3."""

from ml3_tf.outer_loop._adapt import AdaptLoss
from ml3_tf.outer_loop._checkpoint import Checkpoint
from ml3_tf.outer_loop._evolution import EvolutionStrategies
from ml3_tf.outer_loop._guard import FiniteGuard
from ml3_tf.outer_loop._loop import ExtraLoss, OuterLoop, Start
from ml3_tf.outer_loop._memory import estimate_memory
from ml3_tf.outer_loop._population import Kept, Population
from ml3_tf.outer_loop._query_metrics import MetricsLike, QueryMetrics
from ml3_tf.outer_loop._task_loss import TaskLoss, as_task_loss

__all__ = [
    "AdaptLoss",
    "Checkpoint",
    "EvolutionStrategies",
    "ExtraLoss",
    "FiniteGuard",
    "Kept",
    "MetricsLike",
    "OuterLoop",
    "Population",
    "QueryMetrics",
    "Start",
    "TaskLoss",
    "as_task_loss",
    "estimate_memory",
]
