"""How the methods of the recipes that reach goals by experience alone are measured."""

import numpy as np

LEVEL_METHODS = ("learned", "ppo", "paper_ppo")  # the best of these says what 80 % is
SHARE = 0.8  # of the way from fresh policies to the best final return
LAST = 5  # evaluations whose mean is a final return


def curve_of(adaptation, on_policy=False):
    """`(samples, mean return over tasks)`, lists, one entry for each update and one before the first."""
    returns = adaptation.returns if on_policy else adaptation.deterministic_returns
    return adaptation.samples[:, 0].tolist(), np.mean(returns, 1).tolist()


def final(returns):
    """Mean of the last evaluations."""
    return float(np.mean(returns[-LAST:]))


def level_of(curves):
    """80 % of the way from the return of fresh policies to the best final return of `(samples, returns)` curves."""
    curves = [returns for _, returns in curves]
    start = np.mean([returns[0] for returns in curves])
    return float(start + SHARE * (max(map(final, curves)) - start))


def samples_to(level, samples, returns):
    """Samples after which the returns stay at or above the level to the end; `None` if they end below it."""
    below = np.flatnonzero(np.less(returns, level))
    first = 0 if len(below) == 0 else below[-1] + 1
    return int(samples[first]) if first < len(samples) else None


def measure(adapted):
    """Metrics of the methods that learn a task, from their `Adaptation`s: `learned`, perhaps further losses, PPO."""
    curves = {name: curve_of(result) for name, result in adapted.items()}
    level = level_of([curves[name] for name in LEVEL_METHODS])
    needed = {name: samples_to(level, *curve) for name, curve in curves.items()}
    starts = [curves[name][1][0] for name in LEVEL_METHODS]
    metrics = {"initial_return": float(np.mean(starts)), "level": level}
    for name, (_, returns) in curves.items():
        metrics[f"final_return_{name}"] = final(returns)
        metrics[f"on_policy_final_return_{name}"] = final(curve_of(adapted[name], on_policy=True)[1])
        metrics[f"samples_to_level_{name}"] = -1 if needed[name] is None else needed[name]
    for name in ("ppo", "paper_ppo"):
        all_samples = curves[name][0][-1]
        theirs = all_samples if needed[name] is None else needed[name]
        metrics[f"sample_ratio_to_{name}"] = 0.0 if needed["learned"] is None else theirs / max(needed["learned"], 1)
    return metrics


def compare_depths(layers, num_policies):
    """Final returns of policies of several depths, trained with one loss; nothing for one depth."""
    if len(layers) < 2:
        return {}
    finals = {depth: np.mean(result.deterministic_returns[-LAST:], 0) for depth, result in layers.items()}
    by_task = np.mean([values.reshape(-1, num_policies) for values in finals.values()], -1)  # [depths, tasks]
    return {
        **{f"layers_{depth}_final_return": float(np.mean(values)) for depth, values in finals.items()},
        "spread_between_layers": float(np.std(by_task.mean(1))),
        "spread_between_tasks": float(np.std(by_task.mean(0))),
    }
