"""Tests of `python -m ml3_tf.bench`."""

import pytest

from ml3_tf.bench.command import main, renew_report


def test_the_command_writes_results_and_a_report(tmp_path, capsys):
    flags = ["--smoke", "--losses", "mse", "--tasks", "sines", "--output-dir", str(tmp_path)]
    assert main(["sine", *flags]) == 0
    report = tmp_path / "smoke" / "losses.md"
    assert f"Report: {report}" in capsys.readouterr().out
    assert "| `sine_as_exported` |" in report.read_text()
    assert (tmp_path / "smoke" / "losses" / "sine" / "sines" / "seed_0.json").is_file()


def test_a_loss_that_is_not_there_or_fits_no_task_is_an_error_in_words(tmp_path, capsys):
    assert main(["label_free", "--output-dir", str(tmp_path)]) == 1
    assert "no task for the loss 'label_free'" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--output-dir", str(tmp_path)]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_a_folder_without_results_is_told(tmp_path):
    with pytest.raises(ValueError, match="No loss has run on any task"):
        renew_report(tmp_path)


def test_a_flag_that_is_not_known_ends_with_code_2():
    with pytest.raises(SystemExit) as error:
        main(["--nonsense"])
    assert error.value.code == 2
