"""How the methods of the recipes that reach goals by experience alone are measured."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ml3_tf.rl import Adaptation

Curve = tuple[Sequence[float], Sequence[float]]
"""Samples, and the mean return over tasks: an entry before the first update, and one after each."""

LEVEL_METHODS = ("learned", "ppo", "paper_ppo")  # the best of these sets the level of 80 %
SHARE = 0.8  # of the way from fresh policies to the best final return
LAST = 5  # evaluations whose mean is a final return
LATE = 0.2  # of a curve: its last part, that no longer rises if the method has converged


def make_curve(adaptation: Adaptation, *, on_policy: bool = False) -> Curve:
    """Returns the curve of the mean policies, or of the noisy ones."""
    returns = adaptation.returns if on_policy else adaptation.deterministic_returns
    return adaptation.samples[:, 0].tolist(), np.mean(returns, 1).tolist()


def final(returns: Sequence[float]) -> float:
    """Returns the mean of the last evaluations."""
    return float(np.mean(returns[-LAST:]))


def late_rise(samples: Sequence[float], returns: Sequence[float]) -> float:
    """Returns how far a straight line through the last fifth of a curve rises: about 0 where it has converged.

    A line through many evaluations, because single ones scatter.
    """
    number = max(2, round(LATE * len(returns)))
    slope, _ = np.polyfit(samples[-number:], returns[-number:], 1)
    return float(slope * (samples[-1] - samples[-number]))


def compute_level(curves: Iterable[Curve]) -> float:
    """Returns 80 % of the way from the return of fresh policies to the best final return of the curves."""
    all_returns = [returns for _, returns in curves]
    start = np.mean([returns[0] for returns in all_returns])
    return float(start + SHARE * (max(map(final, all_returns)) - start))


def samples_to(level: float, samples: Sequence[float], returns: Sequence[float]) -> int | None:
    """Returns the samples after which the returns stay at or above the level; `None` if they end below it."""
    below = np.flatnonzero(np.less(returns, level))
    first = 0 if len(below) == 0 else below[-1] + 1
    return int(samples[first]) if first < len(samples) else None


def measure(adapted: Mapping[str, Adaptation]) -> dict[str, float]:
    """Returns the metrics of the methods that learn a task: `learned`, perhaps further losses, and PPO."""
    curves = {name: make_curve(result) for name, result in adapted.items()}
    level = compute_level([curves[name] for name in LEVEL_METHODS])
    needed = {name: samples_to(level, *curve) for name, curve in curves.items()}
    ends = {name: final(returns) for name, (_, returns) in curves.items()}
    starts = [curves[name][1][0] for name in LEVEL_METHODS]
    metrics = {"initial_return": float(np.mean(starts)), "level": level}
    for name, curve in curves.items():
        metrics[f"final_return_{name}"] = ends[name]
        metrics[f"on_policy_final_return_{name}"] = final(make_curve(adapted[name], on_policy=True)[1])
        metrics[f"late_rise_{name}"] = late_rise(*curve)
        metrics[f"samples_to_level_{name}"] = _or_never(needed[name])
        for other in ("learned", "ppo"):
            if other != name:
                metrics[f"samples_to_{other}_return_{name}"] = _or_never(samples_to(ends[other], *curve))
    for name in ("ppo", "paper_ppo"):
        all_samples = curves[name][0][-1]
        theirs = all_samples if needed[name] is None else needed[name]
        metrics[f"sample_ratio_to_{name}"] = 0.0 if needed["learned"] is None else theirs / max(needed["learned"], 1)
    return metrics


def _or_never(samples: int | None) -> int:
    return -1 if samples is None else samples


def compare_depths(layers: Mapping[str, Adaptation], num_policies: int) -> dict[str, float]:
    """Returns final returns of policies of several depths, trained with one loss; nothing for one depth."""
    if len(layers) < 2:
        return {}
    finals = {depth: np.mean(result.deterministic_returns[-LAST:], 0) for depth, result in layers.items()}
    by_task = np.mean([values.reshape(-1, num_policies) for values in finals.values()], -1)  # [depths, tasks]
    return {
        **{f"layers_{depth}_final_return": float(np.mean(values)) for depth, values in finals.items()},
        "spread_between_layers": float(np.std(by_task.mean(1))),
        "spread_between_tasks": float(np.std(by_task.mean(0))),
    }
