"""The doctor: a diagnosis of a meta-gradient that teaches nothing, or something wrong. See `MetaTrainer.diagnose`."""

from ml3_tf.diagnosis._diagnose import diagnose
from ml3_tf.diagnosis._records import Diagnosis, Finding, LayerCheck, QueryCheck, VariableCheck

__all__ = ["Diagnosis", "Finding", "LayerCheck", "QueryCheck", "VariableCheck", "diagnose"]
