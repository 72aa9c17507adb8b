"""The settings of the losses that `mountain_car.py` learns."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The settings of one learned loss; the defaults are those of the improved setting."""

    shaped: bool = True
    """Whether the task loss wants the first steps near a place on the left slope."""
    policy: Literal["tanh", "linear"] = "tanh"
    """A policy of one tanh layer, its force squashed; or of two linear layers, its force clipped."""
    policy_units: int = 64
    """Units of the hidden layer of a policy."""
    policy_scale: tuple[float, float] = (0.3, 0.3)
    """Divisors of position (m) and velocity (m/s), so that the policy can see a slow oscillation in the valley."""
    layout: Literal["final_error", "final_distance"] = "final_error"
    """Inputs of the loss beside force and state: the last state minus the goal, or the length of this error."""
    hidden_units: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers of the loss."""
    inner_steps: int = 20
    """Steps of a policy in an outer step of `fit`; phi moves after each of them."""
    lives: tuple[int, int] | None = (20, 60)
    """Policies of meta-training live for between so many steps, log-uniformly; None: for `inner_steps`."""
    inner_rate: float = 1.0
    """Rate of SGD, which trains the policies."""
    inner_clipnorm: float | None = 0.5
    """Largest norm of the gradient of each variable of a policy; None: not clipped."""
    num_tasks: int = 24
    """Policies and starts of an outer step."""
    outer_steps: int = 1200
    """Outer steps of meta-training."""
    outer_rate: float = 3e-3
    """Rate of Adam, which trains the loss."""
    cosine_decay: bool = True
    """Whether the outer rate falls to zero along a cosine."""
    outer_clipnorm: float | None = 1.0
    """Largest norm of the meta-gradient; None: not clipped."""
    start_spread: tuple[float, float] = (0.03, 0.15)
    """Half the range of the starts (m), at the beginning and at the end of meta-training."""
    speed_spread: float = 0.02
    """Largest speed of a start (m/s)."""
    shaping_weight: float = 3.0
    """Gamma of eq. 9, the weight of the first steps; at 1 the first steps of some seeds lead nowhere."""
    path_weight: tuple[float, float] = (1.0, 0.3)
    """Weight of the distance along the way, at the beginning and at the end of meta-training."""
    end_weight: tuple[float, float] = (0.0, 3.0)
    """Weight of the final distance, at the beginning and at the end of meta-training."""
    saturation_weight: float = 0.1
    """Weight of forces near their limit."""
    jit_compile: bool = True
    """Whether meta-training is compiled with XLA. Compiling takes longer than a few steps."""

    def smoke(self) -> "LossSettings":
        """Returns the settings of a run of a few seconds."""
        return dataclasses.replace(
            self, outer_steps=2, inner_steps=2, lives=self.lives and (2, 4), num_tasks=2, jit_compile=False
        )


PAPER = LossSettings(
    policy="linear",
    policy_units=200,
    policy_scale=(1.0, 1.0),
    layout="final_distance",
    hidden_units=(400, 400),
    inner_steps=1,
    lives=None,
    inner_rate=1e-3,
    inner_clipnorm=None,
    num_tasks=1,
    outer_steps=300,
    outer_rate=1e-3,
    cosine_decay=False,
    outer_clipnorm=None,
    start_spread=(0.0, 0.0),
    speed_spread=0.0,
    shaping_weight=1.0,
    path_weight=(1.0, 1.0),
    end_weight=(0.0, 0.0),
    saturation_weight=0.0,
)
