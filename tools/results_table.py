"""Write the tables of results in README.md and docs/ from the committed results.

PYTHONPATH=recipes python tools/results_table.py
"""

import json
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ml3_tf.bench.statistics import bootstrap_interval, interquartile_mean, probability_of_improvement
from parts.costs import break_even

ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    """One line of the table.

    Args:
        folder: Folder below `results/`.
        label: What is measured.
        learned: Metric of the learned loss.
        same_rate: Metric of the task loss at the same rate. `None`: there is none.
        tuned: Metric of the task loss at its best rate, or `None`.
        higher_is_better: Whether more of it is better.
    """

    folder: str
    label: str
    learned: str
    same_rate: str | None
    tuned: str | None
    higher_is_better: bool = False


def _methods(metric):
    return [metric.format(method) for method in ("learned", "same_rate", "tuned")]


def _against_ppo(metric):
    return metric.format("learned"), None, metric.format("ppo")


OTHER_LOSSES = {"cross-entropy": "cross_entropy", "symmetric cross-entropy": "symmetric"}
LEARNED_DISTANCE = "final_distance_learned"
INVERSE_DYNAMICS = ("reacher", "muon"), ("sawyer", "adamw")  # robots, and the optimizers that are best for them
SINES = ("sine_regression", "sine regression"), ("sine_regression_paper", "sine regression, setting of the paper")
DIGITS = (  # folder, labels, and the optimizers that are best on the tuning tasks
    ("digits", "unseen pairs of digits", "all ten digits", "adam", "muon"),
    ("digits_28x28", "unseen pairs of MNIST", "all ten digits of MNIST", "adamw", "muon"),
)
ROWS = [
    Row(folder, f"{label}, error after {steps} steps ↓", *(f"test_mse_{method}{suffix}" for method in methods))
    for folder, label in SINES
    for steps, suffix, methods in (
        ("100", "", ("learned", "same_rate", "tuned")),
        ("1,000", "_1000", ("learned", "same_rate", "tuned_for")),
    )
]
ROWS += [
    Row(
        folder,
        f"{label}, against the best optimizer, error after {steps:,} steps ↓",
        f"test_mse_learned{suffix}",
        None,
        f"test_mse_adamw{suffix}",
    )
    for folder, label in SINES
    for steps, suffix in ((100, ""), (300, "_300"), (1000, "_1000"))
]
ROWS += [
    Row(
        f"sine_lives_{optimizer}",
        f"{label}{against}, error after {steps:,} steps ↓",
        f"test_mse_learned_{steps}",
        None,
        f"test_mse_{baseline}_{steps}",
    )
    for optimizer, label in (
        ("sgd", "sines, learned for lives of 1,000 steps"),
        ("adam", "sines, learned for lives of 1,000 steps of Adam"),
    )
    for baseline, against, reported in (
        ("best", "", (100, 1000)),
        ("muon", ", against the best optimizer", (1000, 3000, 10_000)),
    )
    for steps in reported
]
ROWS += [
    *(
        Row(folder, f"{group}{label}", *_methods(f"{prefix}{metric}"), label.endswith("↑"))
        for folder, pairs, ten, _, _ in DIGITS
        for group, prefix in ((pairs, ""), (ten, "ten_class_"))
        for label, metric in (
            (", steps to 90 % accuracy ↓", "steps_to_90_{}"),
            (", accuracy after 100 steps ↑", "accuracy_{}_100"),
        )
    ),
    *(
        Row(
            folder,
            f"{group}, against the best optimizer, cross-entropy after {steps} steps ↓",
            f"{prefix}cross_entropy_learned_{steps}",
            None,
            f"{prefix}cross_entropy_{best}_{steps}",
        )
        for folder, pairs, ten, best_for_pairs, best_for_ten in DIGITS
        for group, prefix, best in ((pairs, "", best_for_pairs), (ten, "ten_class_", best_for_ten))
        for steps in (20, 60, 200)
    ),
    *(
        Row("keras_fit", label, *(f"{metric}_{method}" for method in ("learned", "same_rate", "sgd")), higher)
        for label, metric, higher in (
            ("a CNN in `fit`, ten digits, test accuracy ↑", "digits_accuracy", True),
            ("a regressor in `fit`, diabetes, test RMSE ↓", "diabetes_rmse", False),
        )
    ),
    Row(
        "keras_fit",
        "a regressor in `fit`, diabetes, against the best optimizer, test RMSE ↓",
        *("diabetes_rmse_learned", None, "diabetes_rmse_adamw"),
    ),
    Row(
        "shaped_sine",
        "shaped sine, share of frequencies recovered in 10 steps ↑",
        *("recovered_shaped", "recovered_mse", "recovered_mse_tuned"),
        True,
    ),
    *(
        Row(
            "shaped_sine",
            f"shaped sine, share of frequencies recovered in {steps} steps ↑",
            *(f"recovered_{method}_{steps}" for method in ("shaped", "mse", "mse_tuned")),
            True,
        )
        for steps in (30, 100)
    ),
    *(
        Row(
            f"inverse_dynamics_{robot}",
            f"inverse dynamics, {robot}, against the best optimizer, torque error after {steps:,} steps (N m) ↓",
            *(f"torque_rmse_{method}_{steps}" for method in ("shaped_adam", "same_rate_adam", best)),
        )
        for robot, best in INVERSE_DYNAMICS
        for steps in (100, 300, 1000)
    ),
    *(
        Row(
            f"inverse_dynamics_{robot}",
            f"inverse dynamics, {robot}, shaped against unshaped with {name}, torque error (N m) ↓",
            *(f"torque_rmse_shaped_{key}_100", None, f"torque_rmse_unshaped_{key}_100"),
        )
        for robot, _ in INVERSE_DYNAMICS
        for key, name in (("sgd", "SGD"), ("adam", "Adam"))
    ),
    *(
        Row(
            "mountain_car",
            f"mountain car, against the best optimizer, share at the goal after {steps} updates ↑",
            f"strict_rate_shaped{suffix}",
            None,
            f"strict_rate_task_adam{suffix}",
            True,
        )
        for steps, suffix in ((10, ""), (30, "_30"), (100, "_100"))
    ),
    *(
        row
        for folder, label in (
            ("pointmass", "point mass, other half-plane, final distance{} (m) ↓"),
            ("reacher_model_based", "arm, other side, final distance{} (rad) ↓"),
        )
        for row in (
            Row(folder, label.format(""), *_methods("final_distance_{}")),
            Row(
                folder,
                label.format(" against the squared distance"),
                LEARNED_DISTANCE,
                None,
                "final_distance_tuned_squared",
            ),
        )
    ),
    *(
        Row(
            folder,
            f"{label}, against the best optimizer, final distance after {steps} updates ({unit}) ↓",
            f"final_distance_learned_{steps}",
            None,
            f"final_distance_tuned_squared_{steps}",
        )
        for folder, label, unit in (
            ("pointmass", "point mass, other half-plane", "m"),
            ("reacher_model_based", "arm, other side", "rad"),
        )
        for steps in (15, 50)  # after 5 it stands above
    ),
    *(
        Row(folder, f"{label}, after 20 updates ↓", *_methods(f"{side}later_final_distance_{{}}"))
        for folder, label, side in (
            ("pointmass", "point mass, trained half-plane", "trained_side_"),
            ("pointmass_lives", "point mass, trained half-plane, long lives", "trained_side_"),
            ("pointmass", "point mass, other half-plane", ""),
            ("pointmass_lives", "point mass, other half-plane, long lives", ""),
        )
    ),
    Row(
        "pointmass_lives",
        "point mass, trained half-plane, long lives, against the best optimizer, after 50 updates ↓",
        "trained_side_final_distance_learned_50",
        None,
        "trained_side_final_distance_tuned_squared_50",
    ),
    Row(
        "reacher_model_free", "arm, without a model, samples to 80 % of the way ↓", *_against_ppo("samples_to_level_{}")
    ),
    Row("reacher_model_free", "arm, without a model, return after learning ↑", *_against_ppo("final_return_{}"), True),
    Row(
        "reacher_model_free",
        "arm, motors reversed, return of a reward-aware loss ↑",
        *("reversed_final_return_learned_rewards", None, "reversed_final_return_ppo"),
        True,
    ),
    Row("ant_model_free", "ant (3 seeds), return after learning ↑", *_against_ppo("final_return_{}"), True),
    Row(
        "label_free",
        "digits, unseen corruptions, adapted without labels, accuracy ↑",
        *("accuracy_learned_20", "accuracy_same_rate_20", "accuracy_entropy_20"),
        True,
    ),
    Row(
        "label_free",
        "digits, unseen corruptions, against information maximization ↑",
        *("accuracy_learned_20", None, "accuracy_information_20"),
        True,
    ),
    *(
        Row(
            "label_free",
            f"digits, unseen corruptions, against information maximization with Adam after {steps} steps ↑",
            *(f"accuracy_learned_{steps}", None, f"accuracy_information_adam_{steps}"),
            True,
        )
        for steps in (20, 100)
    ),
    *(
        Row("fine_tune", f"fine-tuning on few images, {label} after 300 steps {arrow}", *names, arrow == "↑")
        for label, arrow, names in (
            ("cross-entropy", "↓", [f"cross_entropy_{method}_300" for method in ("learned", "same_rate", "adamw")]),
            ("accuracy", "↑", [f"accuracy_{method}_300" for method in ("learned", "same_rate", "adamw")]),
            ("accuracy against label smoothing", "↑", ["accuracy_learned_300", None, "accuracy_smoothing_300"]),
        )
    ),
    *(
        Row("adapt", f"AdaptLoss on tables, {label}, score ↑", f"{name}_score_adapt_adam", None, other, True)
        for name, label in {
            "clean": "clean",
            "label_noise": "20 % wrong labels",
            "outliers": "5 % outliers",
            "imbalance": "imbalance of 10",
        }.items()
        for label, other in (
            (label, f"{name}_score_base_adam"),
            *([] if name == "clean" else [(f"{label}, against a loss made for it", f"{name}_score_robust_adam")]),
        )
    ),
    *(
        Row(
            "noisy_labels",
            f"wrong labels on clothes{network_label}, {noise_label}, against {other}, accuracy ↑",
            f"accuracy_{network}_{noise}_learned",
            None,
            f"accuracy_{network}_{noise}_{OTHER_LOSSES[other]}",
            True,
        )
        for network, network_label, noise, noise_label, other in (
            ("mlp", "", "clean", "right labels", "cross-entropy"),
            ("mlp", "", "symmetric_20", "20 % any other class", "symmetric cross-entropy"),
            ("mlp", "", "symmetric_40", "40 % any other class", "symmetric cross-entropy"),
            ("mlp", "", "symmetric_60", "60 % any other class", "symmetric cross-entropy"),
            ("mlp", "", "pairs_40", "40 % the next class", "symmetric cross-entropy"),
            ("mlp", "", "instance_40", "40 % by the image", "symmetric cross-entropy"),
            ("lenet", ", LeNet", "clean", "right labels", "cross-entropy"),
            ("lenet", ", LeNet", "symmetric_40", "40 % any other class", "cross-entropy"),
            ("lenet", ", LeNet", "pairs_40", "40 % the next class", "symmetric cross-entropy"),
        )
    ),
    Row(
        "reacher_demonstrations",
        "arm, unseen targets, against a clone that sees the target, final distance (rad) ↓",
        LEARNED_DISTANCE,
        None,
        "final_distance_goal_cloning",
    ),
]


README_ROWS = (
    "sine regression, error after 100 steps ↓",
    "sine regression, against the best optimizer, error after 100 steps ↓",
    "wrong labels on clothes, 40 % the next class, against symmetric cross-entropy, accuracy ↑",
    "all ten digits, steps to 90 % accuracy ↓",
    "shaped sine, share of frequencies recovered in 10 steps ↑",
    "digits, unseen corruptions, against information maximization with Adam after 20 steps ↑",
    "AdaptLoss on tables, 5 % outliers, score ↑",
    "inverse dynamics, sawyer, torque error (N m) ↓",
    "point mass, other half-plane, final distance (m) ↓",
    "arm, without a model, samples to 80 % of the way ↓",
    "ant (3 seeds), return after learning ↑",
)


def results_table():
    """Returns the table of all results in Markdown.

    A cell has the mean and the deviation over seeds, and below the interquartile mean with its bootstrap interval of
    95 %; the last cells have the number of seeds on which the learned loss is better, and below the probability of
    improvement, likewise.
    """
    head = "| experiment | learned loss | task loss, same rate | task loss, best rate | better than same | than best |"
    rows = [_cells(row) for row in ROWS]
    lines = [f"| [{row.label}](../results/{row.folder}) | {' | '.join(cells)} |" for row, cells in zip(ROWS, rows)]
    return "\n".join([head, "|---|---|---|---|---|---|", *lines]) + "\n"


def readme_table():
    """Returns the rows of the README; the best rate of the last two is that of a tuned PPO."""
    head = "| experiment | learned loss | task loss, same rate | task loss (or PPO), best rate | better than best |"
    chosen = {row.label: row for row in ROWS if row.label in README_ROWS}
    lines = []
    for label in README_ROWS:
        learned, same_rate, tuned, _, wins = _cells(chosen[label])
        lines.append(f"| [{label}](results/{chosen[label].folder}) | {learned} | {same_rate} | {tuned} | {wins} |")
    return "\n".join([head, "|---|---|---|---|---|", *lines]) + "\n"


def verdict_tables():
    """Returns three tables, after what the probability of improvement over the best rate says with its interval."""
    groups = {"The learned loss is better": [], "No sure difference": [], "The learned loss is worse": []}
    better, unsure, worse = groups.values()
    for row in ROWS:
        metrics = _metrics(row)
        if row.tuned is None:
            continue
        learned, _, tuned, _, wins = _cells(row)
        interval = _improvement(row, metrics, row.tuned)
        group = better if interval.low > 0.5 else worse if interval.high < 0.5 else unsure
        cells = [f"[{row.label}](../results/{row.folder})", *(cell.split("<br>")[0] for cell in (learned, tuned))]
        group.append((interval.value, " | ".join([*cells, wins.split("<br>")[1]])))
    head = (
        "| experiment | learned loss | task loss (or PPO), best rate | probability of improvement |\n|---|---|---|---|"
    )
    sections = [
        "\n".join([f"### {title}\n", head, *(f"| {line} |" for _, line in sorted(lines, reverse=True))])
        for title, lines in groups.items()
    ]
    return "\n\n".join(sections) + "\n"


def _metrics(row):
    return json.loads((ROOT / "results" / row.folder / "summary.json").read_text())["metrics"]


def _improvement(row, metrics, other):
    """The probability that the learned loss is better than another, with its interval."""
    sign = 1 if row.higher_is_better else -1
    scores = [sign * np.array(metrics[name])[:, np.newaxis] for name in (row.learned, other)]
    return bootstrap_interval(probability_of_improvement, *scores)


def _cells(row):
    """Three values, then how often the learned loss is better than each of the others."""
    metrics = _metrics(row)
    values = [name and np.array(metrics[name]) for name in (row.learned, row.same_rate, row.tuned)]
    return [*map(_values, values), _wins(row, metrics, row.same_rate), _wins(row, metrics, row.tuned)]


def _values(values):
    if values is None:
        return "-"
    mean, deviation = np.mean(values), np.std(values)
    interval = bootstrap_interval(interquartile_mean, values[:, np.newaxis])
    if abs(mean) >= 1000:
        return f"{mean:,.0f} ± {deviation:,.0f}<br>" + "{:,.0f} [{:,.0f}, {:,.0f}]".format(*interval)
    return f"{mean:.3g} ± {deviation:.2g}<br>" + "{:.3g} [{:.3g}, {:.3g}]".format(*interval)


def _wins(row, metrics, other):
    """Pairs of one seed have a count, and all pairs a probability: one seed's tasks may be harder than another's."""
    if other is None:
        return "-"
    learned, others = np.array(metrics[row.learned]), np.array(metrics[other])
    wins = np.sum(learned > others if row.higher_is_better else learned < others)
    return f"{wins} of {len(learned)}<br>" + "{:.2f} [{:.2f}, {:.2f}]".format(*_improvement(row, metrics, other))


NEVER = float("inf")


def costs_table():
    """Returns the table of what meta-training and one use cost, of all results that have "costs".

    A use lasts until the learner is as good as the best tuned baseline at the horizon. Break-even is taken for each
    seed; shown are medians over seeds, of which a seed that never gets there is the largest.
    """
    head = "| experiment | unit | meta-training | one use, learned loss | one use, best baseline | break-even, uses |"
    lines = [
        f"| [{path.parent.name}](../results/{path.parent.name}) | {unit.replace('_', '-')} | {' | '.join(cells)} |"
        for path in sorted((ROOT / "results").glob("*/summary.json"))
        for unit, costs in json.loads(path.read_text()).get("costs", {}).items()
        for cells in [_cost_cells(costs)]
    ]
    return "\n".join([head, "|---|---|---|---|---|---|", *lines]) + "\n"


def _cost_cells(costs):
    columns = [costs[name] for name in ("meta_train", "baseline", "learned")]
    uses = [break_even(*values) for values in zip(*columns, strict=True)]
    meta_train, baseline, learned, uses = map(_median, (*columns, uses))
    return [meta_train, learned, baseline, uses]


def _median(values):
    """The median over seeds, and on how many seeds there is a number, if not on all."""
    middle = statistics.median(NEVER if value is None else value for value in values)
    numbers = sum(value is not None for value in values)
    share = "" if numbers == len(values) else f" ({numbers} of {len(values)} seeds)"
    if middle == NEVER:
        return f"never{share if numbers else ''}"
    return (f"{middle:,.0f}" if middle >= 100 else f"{middle:.2g}") + share


def with_table(text, table, name="results"):
    """Returns a text with the table between its markers, `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = text.split(begin)
    return before + begin + table + end + rest.split(end)[1]


TABLES = {
    ("README.md", "results"): readme_table,
    ("docs/results.md", "results"): results_table,
    ("docs/results.md", "costs"): costs_table,
    ("docs/is_it_for_me.md", "results"): verdict_tables,
}
"""Page, name of its markers -> the function that makes what is between them."""


def main():
    """Writes all tables."""
    for (page, name), make in TABLES.items():
        path = ROOT / page
        path.write_text(with_table(path.read_text(encoding="utf-8"), make(), name), encoding="utf-8")


if __name__ == "__main__":
    main()
