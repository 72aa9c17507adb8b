"""Which metrics the tables of results of the model cards show, for `tools/model_cards.py`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from parts.tuned_optimizers import OPTIMIZER_NAMES


class Table(NamedTuple):
    """The table of results of a card.

    Args:
        folder: Folder below `results/`.
        spread: What follows a number. `"deviation"`: mean ± standard deviation over seeds, and seed 0 in brackets.
            `"quartiles"` and `"range"`: median (quartiles, or least and most), and a last column of seed 0.
        columns: Heading of each column, and the part of a metric's name that it stands for.
        rows: Label of each row, and `"METRIC FORMAT"`: `{}` in METRIC is the column's part. FORMAT may have a second
            one, for the deviation, after a slash.
        replaced: Metrics to show instead of others; an empty one is left out.
    """

    folder: str
    spread: Literal["deviation", "quartiles", "range"]
    columns: dict[str, str]
    rows: dict[str, str]
    replaced: Mapping[str, str] = MappingProxyType({})


def _expand(labels: dict[str, str], measures: dict[str, str]) -> dict[str, str]:
    """Returns rows for each label, whose value is a prefix of metrics, and each measure."""
    return {
        f"{label}{what}": f"{prefix}{metric}" for label, prefix in labels.items() for what, metric in measures.items()
    }


THROUGH_MODEL = {
    "learned loss": "learned",
    "task loss, same rate": "same_rate",
    "task loss, best rate": "tuned",
    "squared distance, best rate": "tuned_squared",
}
OTHERS = {
    "linear": "linear policy",
    "deep": "deep policy",
    "trigonometric": "policy that sees sines and cosines",
    "without_velocity": "policy that does not see the velocity",
    "muscles": "policy of four muscles",
    "heavy": "arm of twice the mass",
    "weak": "arm of 0.6 times the torque",
    "long": "arm of 1.3 times the length",
    "stiff": "arm of three times the damping",
    "sprung": "arm with springs",
}
DIGITS = {", steps to 90 %": "steps_to_90_{} .0f"}
DIGITS |= {f", accuracy after {n} steps (%)": f"accuracy_{{}}_{n} .1%" for n in (20, 60, 200)}
DIGITS |= {f", cross-entropy after {n} steps (nats)": f"cross_entropy_{{}}_{n} .2f" for n in (20, 60, 200)}
SINE_STEPS = {100: "", 300: "_300", 1000: "_1000"}
INVERSE_DYNAMICS = {
    f"{label}, {steps:,} steps": f"{metric}_{{}}_{steps} .3g/.2g"
    for label, metric in {
        "torque error (N m)": "torque_rmse",
        "torque error / standard deviation": "torque_share",
        "inertia matrix, relative error": "inertia_error",
    }.items()
    for steps in (100, 300, 1000)
}
MODEL_FREE = {
    ": environment steps to 80 %": "samples_to_level_{} ,.0f",
    ": return after learning (m)": "final_return_{} .2f",
}
ANT = MODEL_FREE | {": return after learning (m)": "final_return_{} .0f"}


def _inverse_dynamics(robot: str, rate: str) -> Table:
    columns = {
        "this loss (shaped, Adam)": "shaped_adam",
        "unshaped learned loss, Adam": "unshaped_adam",
        f"squared error, Adam at {rate}": "same_rate_adam",
        **{f"squared error, {name}, tuned": key for key, name in OPTIMIZER_NAMES.items()},
    }
    return Table(f"inverse_dynamics_{robot}", "deviation", columns, INVERSE_DYNAMICS)


TABLES = {
    "ant_model_free": Table(
        "ant_model_free",
        "range",
        {
            "learned loss": "learned",
            "PPO, tuned: 40 episodes an update": "ppo",
            "PPO, 20 episodes an update": "paper_ppo",
            "goal-conditioned policy (the guide)": "goal_conditioned",
        },
        _expand({"unseen tasks": "", "goals 3 m away": "shifted_"}, ANT),
    ),
    "digits": Table(
        "digits",
        "deviation",
        {
            "learned loss": "learned",
            "cross-entropy, same rate": "same_rate",
            "cross-entropy, best rate": "tuned",
            "Adam": "adam",
            "AdamW": "adamw",
            "Muon": "muon",
        },
        _expand({"unseen pairs": "", "ten digits": "ten_class_"}, DIGITS),
    ),
    "inverse_dynamics_reacher": _inverse_dynamics("reacher", "0.3", "0.03"),
    "inverse_dynamics_sawyer": _inverse_dynamics("sawyer", "0.03", "0.003"),
    "label_free": Table(
        "label_free",
        "deviation",
        {
            "learned loss": "learned",
            "entropy, best rate": "entropy",
            "entropy, normalization alone, Adam": "affine_adam",
            "information maximization": "information",
            "the same with Adam": "information_adam",
            "with labels": "labels",
        },
        {
            f"{classifier}, {steps} steps (%)": f"{prefix}accuracy_{{}}_{steps} .1%"
            for classifier, prefix in {
                "digits": "",
                "Fashion-MNIST": "fashion_",
                "digits, batch norm": "batch_norm_",
            }.items()
            for steps in (20, 100)
        },
    ),
    "mountain_car": Table(
        "mountain_car",
        "quartiles",
        {
            "learned, shaped": "shaped",
            "learned, unshaped": "unshaped",
            "setting of the paper": "paper_setting",
            "task loss, tuned Adam": "task_adam",
            "iLQR with the true model": "ilqr",
        },
        _expand(
            {"the paper's start": "", "random starts": "random_start_"},
            {
                ": final distance": "final_distance_{} .3f",
                ": share at the right end": "reach_rate_{} .2f",
                ": share within 0.1 of the goal": "strict_rate_{} .2f",
            },
        )
        | {
            f"the paper's start, after {steps} updates: {label}share within 0.1": f"{best}strict_rate_{{}}_{steps} .2f"
            for steps in (30, 100)
            for label, best in (("", ""), ("best ", "best_"))
        },
    ),
    "noisy_labels": Table(
        "noisy_labels",
        "deviation",
        {
            "learned loss": "learned",
            "cross-entropy": "cross_entropy",
            "generalized": "generalized",
            "symmetric": "symmetric",
            "start of the loss": "forward",
            "`AdaptLoss`, 500 checked": "adapted",
            "right labels alone": "right_only",
        },
        {
            f"{label} (%)": f"accuracy_{network}_{{}} .1%"
            for label, network in {
                "right labels": "mlp_clean",
                "20 % any other class": "mlp_symmetric_20",
                "40 % any other class": "mlp_symmetric_40",
                "60 % any other class": "mlp_symmetric_60",
                "40 % the next class": "mlp_pairs_40",
                "40 % by the image": "mlp_instance_40",
                "LeNet, right labels": "lenet_clean",
                "LeNet, 40 % any other class": "lenet_symmetric_40",
                "LeNet, 40 % the next class": "lenet_pairs_40",
            }.items()
        },
    ),
    "pointmass": Table(
        "pointmass",
        "quartiles",
        THROUGH_MODEL,
        _expand(
            {"untrained side": "", "trained side": "trained_side_"},
            {"": "final_distance_{} .3f", ", after 20 updates": "later_final_distance_{} .3f"},
        ),
    ),
    "reacher_demonstrations": Table(
        "reacher_demonstrations",
        "quartiles",
        {
            "learned loss": "learned",
            "cloning": "cloning",
            "goal-conditioned cloning": "goal_cloning",
            "taught by that clone": "taught",
            "nearest training target": "nearest",
        },
        {
            "unseen targets: final distance (rad)": "final_distance_{} .2f",
            "unseen targets: fingertip (m)": "fingertip_distance_{} .3f",
            "unseen targets: share within 0.1 rad": "reached_{} .2f",
            "unseen targets, after 40 updates: final distance (rad)": "later_final_distance_{} .2f",
            "training targets, other starts: final distance (rad)": "trained_final_distance_{} .2f",
            **{f"{label}: final distance (rad)": f"{kind}_final_distance_{{}} .2f" for kind, label in OTHERS.items()},
        },
        {"trained_final_distance_nearest": ""},  # 0 by construction
    ),
    "reacher_model_based": Table(
        "reacher_model_based",
        "quartiles",
        THROUGH_MODEL,
        {
            f"{side}{when}": f"{prefix}{metric} .2f"
            for when, metric in {
                ": final distance (rad)": "final_distance_{}",
                ": final speed (rad/s)": "final_speed_{}",
                ", after 20 updates: final distance (rad)": "later_final_distance_{}",
            }.items()
            for side, prefix in {"untrained side": "", "trained side": "trained_side_"}.items()
        },
    ),
    "reacher_model_free": Table(
        "reacher_model_free",
        "quartiles",
        {
            "learned loss": "learned",
            "learned by eq. 8 alone": "learned_alone",
            "the paper's layout": "learned_paper",
            "reward-aware loss": "learned_rewards",
            "PPO, tuned": "ppo",
            "PPO, 20 episodes an update": "paper_ppo",
            "goal-conditioned policy (the guide)": "goal_conditioned",
        },
        _expand({"unseen tasks": "", "unseen directions": "shifted_", "reversed motors": "reversed_"}, MODEL_FREE),
    ),
    "reacher_model_free_rewards": Table(
        "reacher_model_free",
        "quartiles",
        {
            "reward-aware loss": "learned_rewards",
            "`reacher_model_free`, which sees no reward": "learned",
            "PPO, tuned": "ppo",
        },
        _expand(
            {"usual motors": "", "unseen directions of goals": "shifted_", "reversed motors": "reversed_"}, MODEL_FREE
        ),
    ),
    "shaped_sine": Table(
        "shaped_sine",
        "deviation",
        {"10 steps": "", "100 steps": "_100", "abs(nu) in [5, 7]": "_beyond", "noise of 0.1 on y": "_noise"},
        {
            f"{label} (%)": f"recovered_{method}{{}} .1%"
            for label, method in {
                "this loss": "shaped",
                "scores each point by itself": "per_point",
                "this loss, learned on noisy y": "noise_trained",
                "learned for the squared error alone": "unshaped",
                "squared error, best rate of a grid": "mse_tuned",
                "squared error, tuned Adam": "mse_adam",
                "squared error, rate 1.0": "mse",
            }.items()
        },
    ),
    "sine": Table(
        "sine_regression",
        "deviation",
        {
            "learned loss": "learned",
            "squared error, rate 0.001": "same_rate",
            "squared error, best rate of a grid": "tuned",
            "Adam": "adam",
            "AdamW": "adamw",
            "Muon": "muon",
        },
        {f"after {steps:,} steps": f"test_mse_{{}}{suffix} .2f" for steps, suffix in SINE_STEPS.items()},
        # The best rate is that for so many steps.
        {"test_mse_tuned_1000": "test_mse_tuned_for_1000"},
    ),
}
