"""The inner loop: learners of many tasks take optimizer steps on a loss. Eq. 2 of ML3."""

from ml3_tf.inner_loop._loop import MAX_TAPED_STEPS, InnerLoop, LearnerState
from ml3_tf.inner_loop._replicas import Replicas
from ml3_tf.inner_loop._shares import count_shares
from ml3_tf.inner_loop._tasks import are_finite, at_step, count_tasks, expand_like, leave_out_masked, per_task_loss

__all__ = [
    "MAX_TAPED_STEPS",
    "InnerLoop",
    "LearnerState",
    "Replicas",
    "are_finite",
    "at_step",
    "count_shares",
    "count_tasks",
    "expand_like",
    "leave_out_masked",
    "per_task_loss",
]
