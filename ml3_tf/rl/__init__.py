"""Losses that train policies: rollouts, policies, learned dynamics, and the trainers and meta-tests of such losses."""

from ml3_tf.rl.action_distributions import (
    ActionDistribution,
    CategoricalActions,
    GaussianActions,
    categorical_log_prob,
    gaussian_log_prob,
    get_action_distribution,
)
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.demonstrations import DemonstrationTrainer
from ml3_tf.rl.dynamics import DynamicsEnsemble, DynamicsScore
from ml3_tf.rl.dynamics_refit import DynamicsRefit, ReplayBuffer
from ml3_tf.rl.loss_inputs import (
    learning_batch,
    mini_batches,
    observation_and_action,
    observation_and_goal,
    with_response,
    with_return,
    with_reward_changes,
)
from ml3_tf.rl.meta_testing import Adaptation, OnPolicySettings, mean_returns, meta_test_in_env, meta_test_on_policy
from ml3_tf.rl.model_based import ModelBasedTrainer
from ml3_tf.rl.model_free import ModelFreeTrainer
from ml3_tf.rl.policies import CategoricalPolicy, GaussianPolicy, MLPPolicy
from ml3_tf.rl.policy_gradient import PolicyGradient
from ml3_tf.rl.policy_networks import Squash, StandardDeviation
from ml3_tf.rl.policy_trainer import PolicyTrainer
from ml3_tf.rl.rollouts import Trajectory, rollout_env, rollout_model
from ml3_tf.rl.shipped_loss_inputs import get_loss_inputs
from ml3_tf.rl.simulators import Sampler, Simulator, as_tasks, simulate
from ml3_tf.rl.value_baselines import LinearFeatureBaseline

__all__ = [
    "ActionDistribution",
    "Adaptation",
    "CategoricalActions",
    "CategoricalPolicy",
    "DemonstrationTrainer",
    "DynamicsEnsemble",
    "DynamicsRefit",
    "DynamicsScore",
    "GaussianActions",
    "GaussianPolicy",
    "LinearFeatureBaseline",
    "MLPPolicy",
    "ModelBasedTrainer",
    "ModelFreeTrainer",
    "OnPolicySettings",
    "PolicyGradient",
    "PolicyTrainer",
    "ReplayBuffer",
    "RolloutError",
    "Sampler",
    "Simulator",
    "Squash",
    "StandardDeviation",
    "Trajectory",
    "as_tasks",
    "categorical_log_prob",
    "gaussian_log_prob",
    "get_action_distribution",
    "get_loss_inputs",
    "learning_batch",
    "mean_returns",
    "meta_test_in_env",
    "meta_test_on_policy",
    "mini_batches",
    "observation_and_action",
    "observation_and_goal",
    "rollout_env",
    "rollout_model",
    "simulate",
    "with_response",
    "with_return",
    "with_reward_changes",
]
