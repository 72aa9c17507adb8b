"""Tests of the report: its tables, who is left out of them, and its file."""

from ml3_tf.bench.report import find_complete, summary_table, task_table, write_report
from ml3_tf.bench.results import Result


def make(loss, task, seed, score, kind="regression"):
    return Result(loss, task, seed, kind, {"1": score, "3": score / 2}, score, 10, [0.0, score], {})


RESULTS = [
    make(loss, task, seed, score + 0.1 * seed)
    for loss, score in (("mse", 0.2), ("learned", 0.5))
    for task in ("sines", "torques")
    for seed in (0, 1)
]


def test_the_best_loss_is_the_first_of_the_summary():
    lines = summary_table(RESULTS).splitlines()
    assert lines[0] == "| loss | IQM at 1x | IQM at 3x |"
    assert lines[2].startswith("| `learned` | 0.550 [0.5") and lines[3].startswith("| `mse` | 0.250 [0.2")


def test_a_loss_that_lacks_a_run_is_named_and_left_out_of_the_summary():
    results = [*RESULTS, make("new", "sines", 0, 0.9)]
    assert find_complete(results) == (["mse", "learned"], ["sines", "torques"], ["new"])
    assert "Not among them, as some tasks or seeds are missing: new." in summary_table(results)
    assert "| torques | 0.250 ± 0.071 | 0.550 ± 0.071 | - |" in task_table(results)


def test_the_report_has_a_part_for_each_kind_the_figure_and_the_sources(tmp_path):
    results = [*RESULTS, make("cross_entropy", "digits", 0, 0.9, "classification")]
    path = write_report(results, {"mse": "Keras", "unused": "nowhere"}, tmp_path)
    text = path.read_text()
    assert text.index("## Numbers") < text.index("## Classes") < text.index("![") < text.index("- `mse`: Keras.")
    assert "unused" not in text and (tmp_path / "losses.png").is_file()
