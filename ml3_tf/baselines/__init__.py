"""Baselines for learned losses: PPO, iLQR, behavior cloning, and policy gradients through a model of the dynamics."""

from ml3_tf.baselines._behavior_cloning import behavior_cloning
from ml3_tf.baselines._box_qp import box_qp
from ml3_tf.baselines._ilqr import ILQRResult, ilqr
from ml3_tf.baselines._model_gradient import train_in_model
from ml3_tf.baselines._ppo import PPOSettings, ppo
from ml3_tf.baselines._ppo_learning import ClippedObjective

__all__ = [
    "ClippedObjective",
    "ILQRResult",
    "PPOSettings",
    "behavior_cloning",
    "box_qp",
    "ilqr",
    "ppo",
    "train_in_model",
]
