"""The learner of many tasks: fresh parameters for each, and one forward pass for all."""

from ml3_tf.learner._learner import Learner, Parameters
from ml3_tf.learner._recurrent import rnn_by_scan
from ml3_tf.learner._scan import scan
from ml3_tf.learner._vectorize import find_hindrances, is_elementwise, map_over_tasks

__all__ = ["Learner", "Parameters", "find_hindrances", "is_elementwise", "map_over_tasks", "rnn_by_scan", "scan"]
