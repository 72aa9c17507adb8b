"""A loss function that is a Keras network. Eq. 3 of ML3."""

from ml3_tf.meta_loss._base import BASES
from ml3_tf.meta_loss._card import summarize, summary_rows
from ml3_tf.meta_loss._facts import TrainingFacts, check_use
from ml3_tf.meta_loss._learned_rate import LearnedRate
from ml3_tf.meta_loss._loss_per_head import LossPerHead, get_loss
from ml3_tf.meta_loss._meta_loss import MetaLoss

__all__ = [
    "BASES",
    "LearnedRate",
    "LossPerHead",
    "MetaLoss",
    "TrainingFacts",
    "check_use",
    "get_loss",
    "summarize",
    "summary_rows",
]
