"""How the methods of the recipes that reach goals by experience alone are measured."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ml3_tf.rl import Adaptation

Curve = tuple[Sequence[float], Sequence[float]]
"""Samples, and the mean return over tasks: an entry before the first update, and one after each."""

LEVEL_METHODS = ("learned", "ppo", "paper_ppo")  # the best of these sets the level of 80 %
SHARE = 0.8  # of the way from fresh policies to the best final return
LAST = 5  # evaluations whose mean is a final return


def make_curve(adaptation: Adaptation, *, on_policy: bool = False) -> Curve:
    """Returns the curve of the mean policies, or of the noisy ones."""
    returns = adaptation.returns if on_policy else adaptation.deterministic_returns
    return adaptation.samples[:, 0].tolist(), np.mean(returns, 1).tolist()


def final(returns: Sequence[float]) -> float:
    """Returns the mean of the last evaluations."""
    return float(np.mean(returns[-LAST:]))


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
    starts = [curves[name][1][0] for name in LEVEL_METHODS]
    metrics = {"initial_return": float(np.mean(starts)), "level": level}
    for name, (_, returns) in curves.items():
        metrics[f"final_return_{name}"] = final(returns)
        metrics[f"on_policy_final_return_{name}"] = final(make_curve(adapted[name], on_policy=True)[1])
        metrics[f"samples_to_level_{name}"] = -1 if needed[name] is None else needed[name]
    for name in ("ppo", "paper_ppo"):
        all_samples = curves[name][0][-1]
        theirs = all_samples if needed[name] is None else needed[name]
        metrics[f"sample_ratio_to_{name}"] = 0.0 if needed["learned"] is None else theirs / max(needed["learned"], 1)
    return metrics


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
