"""The settings of experts and baselines in the recipe `reacher_demonstrations.py`."""

import dataclasses

from parts.settings import RecipeSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineSettings(RecipeSettings):
    """The settings of experts and baselines. A change of other settings keeps the tuning of the baselines."""

    policy_units: int = 64
    """Units of the hidden layer of a policy."""
    inner_clipnorm: float = 0.5
    """Largest norm of the gradient of each variable of a policy."""
    demonstrations: int = 16
    """Demonstrations of each of the four training targets; a single one is undisturbed."""
    pushes: float = 0.3
    """Standard deviation of the random torques (N m) that push an expert off its course."""
    num_targets: int = 20
    """Unseen targets of meta-test."""
    num_other_targets: int = 10
    """The first of these, on which other policies and other arms are tested."""
    reported_step: int = 20
    """Updates after which the metrics are measured."""
    cloning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    """Rates of Adam that are tried for the cloned policies."""
    cloning_passes: tuple[int, ...] = (16, 48, 160, 480)
    """Passes over one demonstration of each target that are tried; over 16 of them, a sixteenth as many."""
    taught_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Rates of SGD that are tried for `taught`."""
    num_tuning_seeds: int = 2
    """Seeds that the baselines are tuned on."""
    cloning: tuple[float, int] | None = None
    """Rate and epochs of `cloning`; None: those that end nearest to other targets."""
    goal_cloning: tuple[float, int] | None = None
    """The same for `goal_cloning`."""
    taught: float | None = None
    """Rate of `taught`; None: the one that ends nearest to other targets."""
    other_cloning: tuple[tuple[float, int], ...] | None = None
    """Rate and epochs of the clones of other kinds that see the goal; None: those that end nearest to other targets."""
