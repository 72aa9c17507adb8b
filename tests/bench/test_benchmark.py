"""Tests of the benchmark: what runs, what is kept, and that both give the same numbers."""

import dataclasses
import json

import pytest

from ml3_tf.bench import benchmark
from ml3_tf.bench.benchmark import BenchmarkSettings, run_benchmark


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = BenchmarkSettings(
        ("sine", "digits"),
        losses=("mse", "cross_entropy"),
        tasks=("sines", "digits_8x8"),
        output_dir=tmp_path_factory.mktemp("bench"),
        smoke=True,
    )
    lines = []
    return settings, run_benchmark(settings, lines.append), lines


def test_each_loss_runs_on_the_tasks_of_its_kind_tuned_and_as_exported(run):
    settings, results, lines = run
    assert [(result.task, result.loss) for result in results] == [
        *(("sines", name) for name in ("sine", "sine_as_exported", "mse")),
        *(("digits_8x8", name) for name in ("digits", "digits_as_exported", "cross_entropy")),
    ]
    as_exported = {result.loss: (result.config["optimizer"], result.config["rate"]) for result in results}
    assert as_exported["sine_as_exported"] == ("SGD", pytest.approx(1e-3))
    assert len(lines) == 6 and "digits_8x8" in lines[-1]
    tuned = json.loads((settings.results_dir / "mse" / "sines" / "tuning.json").read_text())
    assert tuned["config"]["seeds"] == [100] and set(tuned["scores"]) == {"SGD", "Adam"}


def test_tasks_that_no_named_loss_trains_are_left_out_and_have_no_folder(tmp_path):
    settings = BenchmarkSettings(("digits",), losses=("mse",), tasks=("sines",), output_dir=tmp_path, smoke=True)
    assert run_benchmark(settings, lambda line: None) == []
    assert not list(tmp_path.iterdir())


def test_a_second_run_reads_what_is_kept_and_a_lost_file_comes_back_the_same(run):
    settings, results, _ = run
    path = settings.results_dir / "mse" / "sines" / "seed_0.json"
    content = path.read_bytes()
    stamps = {file: file.stat().st_mtime_ns for file in settings.results_dir.rglob("seed_*.json")}
    path.unlink()
    assert run_benchmark(settings, lambda line: None) == results
    assert path.read_bytes() == content
    del stamps[path]
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"losses": ("mze",)}, "`losses` must be among .*'mse'.* Received: \\['mze'\\]"),
        ({"tasks": ("sine",)}, "`tasks` must be among .*'sines'.* Received: \\['sine'\\]"),
        ({"seeds": 0}, "Seeds must be at least one, from 0 to 99.*Received: seeds=0"),
        ({"first_seed": 98, "seeds": 3}, "the others tune. Received: seeds=3, first_seed=98"),
    ],
)
def test_settings_that_are_not_valid_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        BenchmarkSettings(**settings)


def test_a_task_without_its_data_is_left_out_in_words(monkeypatch, tmp_path):
    def draw(seed):
        raise ConnectionError("Fashion-MNIST is not on this machine.")

    monkeypatch.setitem(benchmark.TASKS, "fashion", dataclasses.replace(benchmark.TASKS["fashion"], draw=draw))
    lines = []
    settings = BenchmarkSettings(losses=("cross_entropy",), tasks=("fashion",), output_dir=tmp_path)
    assert run_benchmark(settings, lines.append) == []
    assert lines == ["fashion, fashion_noisy left out: Fashion-MNIST is not on this machine."]


def test_names_that_are_taken_are_refused(make_loss, tmp_path):
    make_loss().export(tmp_path / "mse")
    with pytest.raises(ValueError, match="Each loss needs a name.*Received: \\['mse'\\], which are taken"):
        run_benchmark(BenchmarkSettings((str(tmp_path / "mse"),), output_dir=tmp_path))
