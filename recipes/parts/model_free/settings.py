"""The settings of the recipes that reach goals by experience alone."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

from ml3_tf.rl import PolicyGradient
from parts.settings import RecipeSettings

# Rate and episodes of PPO.
PPORate = tuple[float, int]


class Variant(NamedTuple):
    """One of the learned losses: the settings in which its meta-training differs from the recipe's.

    Args:
        changes: Name of a setting -> its value: inputs, tasks and task loss.
        sizes: The same for sizes and rates. `same_sizes` leaves them out.
    """

    changes: Mapping[str, Any] = {}
    sizes: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningSettings(RecipeSettings):
    """The settings that PPO is tuned with. A change of other settings keeps the tuning."""

    policy_units: int = 64
    """Units of each hidden layer of a policy."""
    discount: float
    """Gamma, of eq. 8 and of PPO."""
    gae_lambda: float
    """Lambda of the generalized advantage estimates, of eq. 8 and of PPO."""
    num_tuning_tasks: int
    """Tasks that PPO is tuned on."""
    ppo_rates: tuple[float, ...]
    """Rates of Adam that are tried for PPO."""
    ppo_episodes: tuple[int, ...]
    """Episodes of an update that are tried for PPO."""
    ppo_samples: int
    """Environment steps of PPO for each task."""
    ppo_batch: int
    """Time steps in a mini-batch of PPO."""
    ppo_epochs: int = 10
    """Passes of PPO over the experience of an update."""
    ppo: PPORate | None = None
    """Rate and episodes of `ppo`; None: those of the grid that need the fewest samples."""
    paper_ppo: PPORate | None = None
    """The same for `paper_ppo`; None: the best rate with 20 episodes."""
    jit_compile: bool = True
    """Whether training is compiled with XLA. Compiling takes longer than a few steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFreeSettings(TuningSettings):
    """The settings that these recipes share. A field without a value has one in each recipe."""

    losses: tuple[str, ...] = ("learned",)
    """The losses to be learned; `learned` is always among them."""
    policy_layers: tuple[int, ...] = (2,)
    """Numbers of hidden layers of the policies that the loss is tested on."""
    layout: str
    """Inputs of the loss."""
    hidden_units: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of the loss."""
    activation: str = "silu"
    """Activation of the loss."""
    output_scale: float = 0.01
    """Variance of the first output weights of the loss, as a share of Glorot's."""
    inner_steps: int
    """Episodes of a policy in meta-training; it learns from each."""
    inner_rate: float = 1e-2
    """Initial rate of Adam, which trains the policies; it falls to zero over the life of a policy."""
    batch_size: int
    """Time steps in a mini-batch of a policy in meta-training."""
    test_rate: float = 3e-3
    """As `inner_rate`, at meta-test."""
    test_batch_size: int = 2
    """As `batch_size`, at meta-test."""
    num_tasks: int
    """Tasks of an outer step."""
    episodes: int = 1
    """Episodes of each task between two updates of a policy."""
    outer_steps: int
    """Outer steps of meta-training: each trains fresh policies for their whole life."""
    outer_epochs: int = 3
    """Passes of the outer optimizer over the same rollouts."""
    outer_batch_size: int = 4
    """Tasks in a step of the outer optimizer."""
    outer_rate: float = 2e-3
    """Initial rate of Adam, which trains the loss; it falls to zero along a cosine."""
    outer_clipnorm: float = 1.0
    """Largest norm of the meta-gradient."""
    clip_range: float = 0.2
    """PPO's clipping of eq. 8, which several passes need."""
    baseline: Literal["episodes", "squares", "quadratic"] | None = "quadratic"
    """Baseline of eq. 8, see `ml3_tf.rl.PolicyGradient`."""
    excess_weight: float
    """Weight of means beyond the limits of the actions."""
    guide_weight: float = 1000.0
    """Weight of the two gaps to the guide. At 0 there is no guide."""
    guide_limit: float
    """Largest mean of the guide, which is clipped there."""
    test_updates: int
    """Updates of a policy at meta-test, with an episode each."""
    num_test_tasks: int = 10
    """Tasks of meta-test."""
    num_shifted_tasks: int
    """Tasks of each further kind at meta-test."""
    num_policies: int
    """Fresh policies for each task of meta-test."""
    paper_ppo_samples: int
    """Environment steps of `paper_ppo` for each task."""
    goal_conditioned_tasks: int
    """Tasks of the guide, with an episode of each in an update."""
    goal_conditioned_samples: int
    """Environment steps of the guide."""
    goal_conditioned_rate: float = 1e-3
    """Initial rate of Adam, which trains the guide; it falls to a twentieth."""
    goal_conditioned_batch: int
    """Time steps in a mini-batch of the guide."""
    goal_conditioned_epochs: int
    """Passes over the experience of an update of the guide."""
    goal_conditioned_units: int = 128
    """Units of each hidden layer of the guide."""
    goal_conditioned_discount: float
    """Gamma of the guide."""
    goal_conditioned_lambda: float
    """Lambda of the guide."""
    same_sizes: bool = False
    """Whether all losses have the sizes and rates given here, and not their own."""

    variants: ClassVar[Mapping[str, Variant]] = {}

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Names of the losses to be learned, `learned` first."""
        return tuple(dict.fromkeys(("learned", *self.losses)))

    def loss_changes(self, name: str) -> dict[str, Any]:
        """Returns the settings in which the meta-training of one of the losses differs."""
        variant = self.variants[name]
        return {**variant.changes, **({} if self.same_sizes else variant.sizes)}

    def loss_settings(self, name: str) -> Self:
        """Returns the settings of one of the losses."""
        return self.replace(**self.loss_changes(name))

    @property
    def fine_tuning(self) -> tuple[float, int, int] | None:
        """Rate, episodes and samples of PPO that fine-tunes the goal-conditioned policy; `None`: it is left out."""
        return None

    def task_loss(self) -> PolicyGradient:
        """Returns eq. 8."""
        return PolicyGradient(
            discount=self.discount, gae_lambda=self.gae_lambda, baseline=self.baseline, clip_range=self.clip_range
        )

    def to_config(self) -> dict[str, Any]:
        """Returns the settings as JSON can hold them; a change of a variant is a change of the settings, too."""
        return {**super().to_config(), "losses": {name: self.loss_changes(name) for name in self.loss_names}}
