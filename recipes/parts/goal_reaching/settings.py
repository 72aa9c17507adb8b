"""The settings of the recipes that reach goals through a learned model of the dynamics."""

import dataclasses
from typing import Self

from parts.settings import RecipeSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoalReachingSettings(RecipeSettings):
    """The settings that these recipes share. A field without a value has one in each recipe."""

    hidden_units: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers of the learned loss."""
    learning_rate: float = 1.0
    """Initial value of the rate that the loss learns; it multiplies `inner_rate`."""
    inner_steps: int = 10
    """Steps of a policy in an outer step. At meta-test, fewer are reported, see `reported_step`."""
    lives: tuple[int, int] | None = None
    """Policies of meta-training live for between so many steps, log-uniformly; None: for `inner_steps`."""
    unroll: int = 1
    """Inner steps that the outer gradient flows through."""
    inner_rate: float = 0.1
    """Rate of SGD, which trains the policies."""
    inner_clipnorm: float = 0.5
    """Largest norm of the gradient of each variable of a policy."""
    num_tasks: int = 16
    """Policies, starts and goals of an outer step."""
    outer_steps: int
    """Outer steps of meta-training."""
    outer_rate: float = 3e-3
    """Initial rate of Adam, which trains the loss; it falls to zero along a cosine."""
    outer_clipnorm: float = 1.0
    """Largest norm of the meta-gradient."""
    path_weight: float
    """Weight in the task loss: the mean distance to the goal."""
    end_weight: float
    """Weight in the task loss: the final distance."""
    speed_weight: float
    """Weight in the task loss: the final speed."""
    saturation_weight: float
    """Weight in the task loss: actions near their limits."""
    dynamics_rate: float = 3e-3
    """Rate of Adam, which trains the model of the dynamics."""
    dynamics_epochs: int
    """Epochs of each fit of the dynamics."""
    dynamics_batch: int
    """Transitions in a step of these fits."""
    refit_every: int = 100
    """Outer steps between two fits of the dynamics."""
    num_refit_episodes: int = 16
    """Real episodes of the trained policies before each fit."""
    exploration: int = 4
    """Rounds of as many random episodes before meta-training."""
    test_steps: int = 50
    """Updates of a policy at meta-test."""
    reported_step: int = 5
    """The horizon of meta-test: updates after which the metrics are measured; fewer than the `inner_steps`."""
    num_goals: int
    """Goals of meta-test, on each side."""
    num_tuning_goals: int
    """Other goals, for which the rates of the baselines are tuned."""
    tuned_clipnorms: tuple[float | None, ...] = (0.5, None)
    """Largest gradient norms that are tried with each rate of a baseline; None: not clipped."""
    adaptive_rates: tuple[float, ...] = (1e-2, 2e-2, 5e-2, 1e-1)
    """Where the search for the rates of `adam`, `adamw` and `muon` begins, see `tune_rate`."""
    tuned: tuple[float, float | None] | None = None
    """Rate and largest gradient norm of the baseline `tuned`; None: those that end nearest to other goals."""
    tuned_squared: tuple[float, float | None] | None = None
    """The same for the baseline `tuned_squared`."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of the baselines `adam`, `adamw` and `muon`; None: those that end nearest to other goals."""
    optimizer_rates_squared: tuple[float, ...] | None = None
    """The same for `adam_squared`, `adamw_squared` and `muon_squared`."""
    best_baseline: str | None = None
    """The baseline that ends nearest to these other goals. None: found as the rates are."""
    jit_compile: bool = True
    """Whether meta-training is compiled with XLA. Compiling takes longer than a few steps."""

    def smoke(self) -> Self:
        """Returns the settings of a run of a few seconds."""
        return self.replace(
            outer_steps=2,
            inner_steps=1,
            lives=self.lives and (1, 2),
            num_tasks=2,
            dynamics_epochs=1,
            num_refit_episodes=2,
            refit_every=2,
            test_steps=2,
            reported_step=1,
            num_goals=2,
            num_tuning_goals=1,
            tuned_clipnorms=self.tuned_clipnorms[:1],
            adaptive_rates=self.adaptive_rates[:1],
            jit_compile=False,
        )
