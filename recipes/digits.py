"""Meta-learn a loss on one pair of digits, and train classifiers of other digits with it (ML3, section 4.1, figure 2).

    python recipes/digits.py                          one seed, about a minute and a half
    python recipes/digits.py --seeds 10               the reported run
    python recipes/digits.py --data mnist --output-dir results/digits_mnist

The learner is LeNet with its original layer sizes: tanh convolutions of 6 and of 16 filters of 5x5, each followed by
average pooling, then tanh layers of 120 and 84; here on 16x16 pixels (the first convolution pads), with one softmax
output for each class. The loss is learned on one pair of digits, 4 and 7, and compared on four pairs that share no
digit with it, and on all ten digits, with gradient descent on cross-entropy: at the same rate, and at the best rate
of a grid, tuned once on training images of other pairs of digits (for ten classes: of the ten digits). All methods
start from the same fresh LeNets, and take full-batch SGD steps on 50 images of each class. Scores are on 49 or 50
other images of each class, which nobody was trained on.

The loss is per output: one network scores each pair of a class's probability and its one-hot target, and the mean
over the classes is taken, so it trains any number of them. A mean over ten classes gives each a fifth of the step
that it gets as one of two; so the rate grows with their number, for all methods: .01 for two (the default of Keras for
SGD), .05 for ten. What the learned loss does on ten classes at .01 is reported too.

Meta-training sees 4s and 7s alone. Turned by quarters and mirrored, they make 16 classes. Tasks of two and of ten of
these take turns: each draws its classes and images at random, trains fresh LeNets for 20 steps, and differentiates
the cross-entropy on other images through all of them.

Departures from the paper, which says "one pair to train, other pairs to test, LeNet" and little else: turned and
mirrored digits in meta-training; probabilities as the loss's input (its reference: logarithms of both probabilities
at once, which fits two classes only); 20 inner steps instead of one; ten classes; a tuned baseline. The settings were
chosen on training images of the tuning pairs and of the ten digits, with seeds from 100 on. Logarithms of
single probabilities were tried as inputs: they know no bound, and some learners diverged beyond the trained steps.
More or faster meta-training is not better here: learners then reach the edge of divergence, and the meta-gradient with
them, as the late spikes of panel (d) of the figure show.

Metrics (`summary.json`, one value per seed; METHOD is `learned`, `same_rate` or `tuned`; STEPS is 10, 30, 100 or 300
gradient steps, of which 300 is 15 times what the loss was trained for):
    accuracy_METHOD_STEPS: share of correct classes on unseen images, mean over LeNets and unseen pairs.
    cross_entropy_METHOD_STEPS: cross-entropy on unseen images (nats), the same mean.
    steps_to_90_METHOD: steps until 90 % of unseen images are right, mean over LeNets; one that never is counts 300.
    ten_class_accuracy_METHOD_STEPS, ten_class_cross_entropy_METHOD_STEPS, ten_class_steps_to_90_METHOD: the same for
        the ten digits.
    ten_class_accuracy_learned_rate_of_two_STEPS (and ten_class_cross_entropy_..., ten_class_steps_to_90_...): for
        the learned loss on ten digits at the rate for two classes, .01.
    train_pair_accuracy_METHOD_STEPS, train_pair_cross_entropy_METHOD_STEPS, train_pair_steps_to_90_METHOD: the same
        for the pair of meta-training, on images that were not part of it.

    The tuned rates stand in "config", as tuned_rate and tuned_rate_ten.

Files: `summary.json`, `history.csv`, `figure.png`, and the learned loss of the first seed in `meta_loss/`.
"""

from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tyro
from digit_figure import METHODS, draw_figure
from digit_images import check_pairs, draw_tasks, load_images, meta_train_tasks, split
from experiment import command_line, export_loss_of, print_table, run_seeds, write_history, write_summary
from lenet import build_lenet, learning_curves, steps_to

import ml3_tf

TRAIN_PAIR = (4, 7)  # no two of their quarter turns and mirror images look alike
TEST_PAIRS = ((0, 6), (1, 8), (2, 3), (5, 9))
TUNING_PAIRS = [[0, 9], [1, 2], [3, 5], [6, 8]]
TEN_DIGITS = tuple(range(10))
RATE_PER_CLASS = 5e-3  # a per-output loss is a mean over classes: the rate makes up for it
RATES = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5]  # the grid for cross-entropy
REPORTED_STEPS = (10, 30, 100, 300)
TUNED_STEPS = 100
PER_CLASS = 50  # images in training, and as many in testing

CONFIG = {
    "meta_loss": {"activation": "silu", "learning_rate": 30.0, "input_scale": [0.2, 1.0]},
    "output_stddev": 1e-4,  # start from a loss that moves nobody: a random one diverges
    "inner_steps": 20,
    "epochs": 50,  # in each, tasks of two and of ten classes take their turn: rarer turns undo each other
    "clip_norm": 0.5,
    "heads": {  # tasks of meta-training, by their number of classes
        "2": {"outer_rate": 1.3e-3, "outer_steps": 100, "num_tasks": 2, "per_class": 16},
        "10": {"outer_rate": 1.8e-3, "outer_steps": 100, "num_tasks": 1, "per_class": 8},
    },
    "test_learners": 1,  # fresh LeNets for each pair, and for the ten digits
    "tuning_learners": 3,
    "test_steps": REPORTED_STEPS[-1],
}
SMOKE = {
    "inner_steps": 2,
    "epochs": 2,
    "heads": {
        "2": {"outer_rate": 1e-3, "outer_steps": 2, "num_tasks": 1, "per_class": 2},
        "10": {"outer_rate": 3e-3, "outer_steps": 2, "num_tasks": 1, "per_class": 1},
    },
    "test_learners": 1,
    "tuning_learners": 1,
    "test_steps": 10,
    "tuning_pairs": TUNING_PAIRS[:1],
    "rates": RATES[2:3],
}


def rate_for(num_classes):
    return RATE_PER_CLASS * num_classes


def stream(purpose, seed):
    """Training, tuning and testing draw from streams of their own."""
    return 3 * seed + ["train", "tune", "test"].index(purpose)


def meta_train(images, pair, config, seed, verbose):
    """Returns the learned loss, and for each number of classes the task loss for each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    initializer = keras.initializers.RandomNormal(stddev=config["output_stddev"])
    meta_loss = ml3_tf.MetaLoss.mlp(
        (40, 40), output_initializer=initializer, mode="per_output", name="digits", **config["meta_loss"]
    )
    images_of_pair = [images.x[images.y == digit] for digit in pair]
    trainers = {head: compile_trainer(meta_loss, int(head), config, seed) for head in config["heads"]}
    curves = {head: [] for head in trainers}
    for epoch in range(config["epochs"]):
        for head, trainer in trainers.items():
            settings = config["heads"][head]
            sizes = int(head), settings["num_tasks"], settings["per_class"]
            history = trainer.fit(
                meta_train_tasks(images_of_pair, *sizes, seed=[stream("train", seed), epoch]),
                steps_per_epoch=settings["outer_steps"] // config["epochs"],
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=verbose,
            )
            curves[head] += history.history["loss"]
    return meta_loss, curves


def compile_trainer(meta_loss, num_classes, config, seed):
    settings = config["heads"][str(num_classes)]
    trainer = ml3_tf.MetaTrainer(
        lambda: build_lenet(num_classes), meta_loss, inner_steps=config["inner_steps"], seed=stream("train", seed)
    )
    schedule = keras.optimizers.schedules.CosineDecay(settings["outer_rate"], settings["outer_steps"])
    trainer.compile(
        # An Adam for each number of classes: their gradients differ a hundredfold in size.
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=config["clip_norm"]),
        loss="categorical_crossentropy",
        inner_optimizer=keras.optimizers.SGD(rate_for(num_classes)),
        jit_compile=False,  # on a CPU, XLA's convolutions are five times slower
    )
    return trainer


def tune_rates(_, config, output_dir, verbose):
    """The rates of the grid at which cross-entropy is least, on average over 100 steps: for two classes and for ten.

    They are found once, on training images alone, a part of which is held out for this, and they are the same for all
    seeds: near the edge of divergence, a rate tuned on few learners fails on the next.
    """
    train, held_out = split(load_images(config["data"], config["data_path"])[0])
    steps = min(TUNED_STEPS, config["test_steps"])
    best = []
    for groups in (config["tuning_pairs"], [TEN_DIGITS]):
        tasks = draw_tasks(train, held_out, groups, PER_CLASS, config["tuning_learners"], stream("tune", 0))
        scores = [
            learning_curves("categorical_crossentropy", rate, tasks, steps, stream("tune", 0))[0].mean()
            for rate in config["rates"]
        ]
        best.append(config["rates"][int(np.argmin(np.nan_to_num(scores, nan=np.inf)))])
    return {"tuned_rate": best[0], "tuned_rate_ten": best[1]}


def run_seed(seed, config, output_dir, verbose):
    train, test = load_images(config["data"], config["data_path"])
    meta_loss, meta_train_curves = meta_train(train, config["train_pair"], config, seed, verbose)
    meta_loss.export(output_dir / "seeds" / f"meta_loss_{seed}")

    experiments = {"": config["test_pairs"], "train_pair_": [config["train_pair"]], "ten_class_": [TEN_DIGITS]}
    curves = {}
    for prefix, groups in experiments.items():
        ten = groups == [TEN_DIGITS]
        tasks = draw_tasks(train, test, groups, PER_CLASS, config["test_learners"], stream("test", seed))
        rate, tuned_rate = rate_for(len(groups[0])), config["tuned_rate_ten" if ten else "tuned_rate"]
        methods = {
            "learned": (meta_loss, rate),
            "same_rate": ("categorical_crossentropy", rate),
            "tuned": ("categorical_crossentropy", tuned_rate),
            **({"learned_rate_of_two": (meta_loss, rate_for(2))} if ten else {}),
        }
        curves[prefix] = {
            name: learning_curves(*method, tasks, config["test_steps"], stream("test", seed))
            for name, method in methods.items()
        }
    return {
        "metrics": all_metrics(curves),
        "meta_train": meta_train_curves,
        "meta_test": {
            prefix: {name: values.mean(axis=2).tolist() for name, values in methods.items()}
            for prefix, methods in curves.items()
        },
    }


def all_metrics(curves):
    """The metrics of one seed, from prefix -> method -> `[2, steps + 1, N]`."""
    metrics = {}
    for prefix, methods in curves.items():
        for name, (cross_entropy, accuracy) in methods.items():
            for step in REPORTED_STEPS:
                if step < len(accuracy):
                    metrics[f"{prefix}accuracy_{name}_{step}"] = float(accuracy[step].mean())
                    metrics[f"{prefix}cross_entropy_{name}_{step}"] = float(cross_entropy[step].mean())
            metrics[f"{prefix}steps_to_90_{name}"] = float(steps_to(0.9, accuracy).mean())
    return metrics


def main(
    seeds: int = 1,
    first_seed: int = 0,
    data: Literal["digits", "mnist"] = "digits",
    data_path: Path | None = None,
    train_pair: tuple[int, int] = TRAIN_PAIR,
    test_pairs: tuple[tuple[int, int], ...] = TEST_PAIRS,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/digits"),
):
    """Meta-learns a loss on one pair of digits and compares it on others.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        data: `digits` (scikit-learn's, no download), or `mnist`.
        data_path: `.npz` file of MNIST; default: Keras fetches it.
        train_pair: The two digits of meta-training.
        test_pairs: Pairs of digits that the loss is tested on.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    check_pairs(train_pair, test_pairs)
    load_images(data, data_path)  # fails before anything is written
    config = {
        "data": data,
        "data_path": None if data_path is None else str(data_path),
        "train_pair": list(train_pair),
        "test_pairs": [list(pair) for pair in test_pairs],
        "tuning_pairs": TUNING_PAIRS,
        "rates": RATES,
        **CONFIG,
    }
    config |= {**SMOKE, "smoke": True} if smoke else {}
    numbers = range(first_seed, first_seed + seeds)
    [tuned] = run_seeds(tune_rates, ["tuning"], config, output_dir)
    config |= {name: tuned[name] for name in ("tuned_rate", "tuned_rate_ten")}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary("digits", command, numbers, results, config, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = Path(output_dir) / "figure.png"
    draw_figure(results, config).savefig(figure_path)
    loss_path = export_loss_of(first_seed, output_dir)
    print_results(metrics, config["test_steps"])
    print(
        f"\nFigure: {figure_path}\nLearned loss: {loss_path}\n\nUse it in any Keras classifier with a softmax and "
        f'one-hot targets:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.SGD({RATE_PER_CLASS} * num_classes), loss=loss)"
    )
    return metrics


def history_rows(seeds, results):
    rows = []
    for seed, result in zip(seeds, results):
        for head, curve in result["meta_train"].items():
            shared = {"seed": seed, "phase": f"meta_train_{head}_classes", "method": "learned"}
            rows += [{**shared, "step": i, "cross_entropy": loss, "accuracy": ""} for i, loss in enumerate(curve)]
        for prefix, methods in result["meta_test"].items():
            for name, (cross_entropy, accuracy) in methods.items():
                shared = {"seed": seed, "phase": f"{prefix}meta_test", "method": name}
                rows += [
                    {**shared, "step": i, "cross_entropy": loss, "accuracy": share}
                    for i, (loss, share) in enumerate(zip(cross_entropy, accuracy))
                ]
    return rows


def print_results(metrics, last_step):
    kinds = {"": "unseen pairs", "ten_class_": "ten digits"}
    rows = []
    for prefix, kind in kinds.items():
        for key, method in METHODS.items():
            rows += [
                (f"{kind}, {method}: accuracy after {step} steps", f"{prefix}accuracy_{key}_{step}")
                for step in REPORTED_STEPS
                if step <= last_step
            ]
            rows.append((f"{kind}, {method}: steps to 90 %", f"{prefix}steps_to_90_{key}"))
    print_table(metrics, rows)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
