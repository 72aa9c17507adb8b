"""Tests of `ml3_tf.commands.command_line`: subcommands, exit codes, JSON, and a quiet screen."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ml3_tf
from ml3_tf.commands import main
from ml3_tf.commands.command_line import SUBCOMMANDS, Command
from ml3_tf.saving import _manifest, catalog

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "command_line.md").read_text(encoding="utf-8")


@pytest.fixture
def run(capsys):
    """A function that runs the command and returns its exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:
            code = end.code or 0  # tyro ends with None after completion
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def changed(artifact):
    """An export in whose weights one byte was changed."""
    data = bytearray((artifact / _manifest.WEIGHTS).read_bytes())
    data[-3] ^= 1
    (artifact / _manifest.WEIGHTS).write_bytes(data)
    return artifact


def test_list_names_every_shipped_loss(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    for loss in ml3_tf.list_meta_losses():
        assert f"{loss.name}, version 1\n" in out
    assert "y_pred (1), y_true (1)" in out
    code, out, _ = run("list", "--json")
    losses = json.loads(out)
    assert code == 0 and [loss["name"] for loss in losses] == ml3_tf.list_meta_losses().names
    assert set(losses[0]) == {"name", "versions", "purpose", "mode", "features"}


def test_card_prints_the_file(run):
    code, out, err = run("card", "sine")
    card = (ROOT / "savedmodels" / "sine" / "README.md").read_text(encoding="utf-8")
    assert (code, out.strip(), err) == (0, card.strip(), "")
    assert json.loads(run("card", "sine", "--json")[1])["text"] == card


@pytest.mark.parametrize("command", ["card", "show", "check"])
def test_an_unknown_name_is_told_with_the_names_that_there_are(run, command):
    code, out, err = run(command, "cosine")
    assert code == 1 and out == ""
    assert "'cosine'" in err and "'sine'" in err and err.count("\n") == 1
    code, out, err = run(command, "cosine", "--json")
    assert (code, err) == (1, "")
    assert json.loads(out)["error"] == "FileNotFoundError" and "'cosine'" in json.loads(out)["message"]


def test_show_gives_the_formula_and_the_figure(run, tmp_path):
    code, out, err = run("show", "sine", "--output", tmp_path / "loss.png")
    assert (code, err) == (0, "")
    assert "learned rate  68.1" in out and "loss ≈ 1080·log(1 + (e/4)²)" in out and str(tmp_path / "loss.png") in out
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    shown = json.loads(run("show", "sine", "--json")[1])
    assert (
        shown["output"] is None
        and shown["r_squared"] > 0.9
        and shown["summary"]["features"] == {"y_pred": 1, "y_true": 1}
    )


def test_show_takes_the_other_features_as_json(run):
    fixed = '{"acceleration": [null, 0], "state": [0, 0, 0, 0], "goal": [null, 1]}'
    code, out, _ = run("show", "pointmass", "--fixed", fixed)
    assert code == 0 and "loss ≈" in out


def test_a_loss_without_a_plane_says_what_to_do(run):
    code, out, err = run("show", "pointmass")
    assert code == 1 and out == ""
    assert err.startswith("'pointmass' cannot be shown. A plane has one prediction and one target")
    assert "to the flag --fixed, as JSON. Its model card has a figure: ml3-tf card pointmass" in err
    code, _, err = run("show", "shaped_sine")
    assert code == 1 and "scores examples together" in err and "--fixed" not in err


def test_check_passes_a_whole_export(run, artifact):
    code, out, err = run("check", artifact)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith("ok      ") for line in lines[:-2]) and len(lines) > 10
    assert lines[-2].startswith(f"{artifact} is a whole export")
    assert run("check", artifact, "--sha256", lines[-1])[0] == 0
    assert run("check", artifact.parent, "--version", 1)[0] == 0


def test_check_names_the_file_in_which_a_byte_was_changed(run, changed):
    code, out, err = run("check", changed)
    assert (code, err) == (1, "")
    [failed] = [line for line in out.splitlines() if line.startswith("FAILED")]
    assert failed == f"FAILED  size and SHA-256: {_manifest.WEIGHTS}"
    assert f"{_manifest.WEIGHTS}' is not the exported file" in out
    code, out, _ = run("check", changed, "--json")
    found = json.loads(out)
    assert code == 1 and found["passed"] is False
    assert found["checks"][-1]["name"].endswith(_manifest.WEIGHTS) and not found["checks"][-1]["passed"]


def test_check_refuses_another_manifest_and_a_folder_that_is_not_an_export(run, artifact, tmp_path):
    code, out, _ = run("check", artifact, "--sha256", "0" * 64)
    assert code == 1 and "is not the pinned manifest" in out
    code, _, err = run("check", artifact, "--sha256", "abc")
    assert code == 1 and "`expected_sha256` must be 64 hexadecimal digits" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("check", tmp_path / "empty")
    assert code == 1 and "is not the folder of an exported loss" in err


def test_doctor_finds_this_installation_fit(run):
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "All that is needed is there."
    code, out, _ = run("doctor", "--json")
    assert code == 0 and json.loads(out)["passed"] is True


def test_doctor_fails_if_a_shipped_loss_is_damaged(run, changed, monkeypatch):
    shutil.copytree(changed, changed.parents[1] / "shipped" / "sine" / "1")
    monkeypatch.setattr(catalog, "SHIPPED", changed.parents[1] / "shipped")
    code, out, _ = run("doctor")
    assert code == 1 and "FAILED  loss sine" in out and _manifest.WEIGHTS in out
    assert out.splitlines()[-1] == "Something that is needed is wrong, see above."


@pytest.mark.parametrize(
    "arguments", [(), ("lists",), ("card",), ("check", "sine", "--version", "new"), ("list", "--jso")]
)
def test_a_command_line_that_is_not_valid_ends_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and err


def test_help_names_commands_exit_codes_and_completion(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for word in (*SUBCOMMANDS, "Exit codes: 0", "--tyro-print-completion bash"):
        assert word in out
    code, out, _ = run("--tyro-print-completion", "bash")
    assert code == 0 and "ml3-tf" in out


def test_without_tyro_one_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    code, out, err = run("list")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and err.endswith("pip install 'ml3_tf[cli]'\n")


def test_a_command_must_say_what_it_does():
    with pytest.raises(NotImplementedError, match="Command must define `run`"):
        Command().run()


@pytest.mark.parametrize("how", ["module", "script"])
def test_the_screen_is_quiet_and_the_code_is_passed_on(how, tmp_path):
    """In a process of its own, where TensorFlow writes notices unless it is kept from it."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(ROOT)
    script = tmp_path / "ml3-tf"  # as an installer writes it
    script.write_text("import sys\nfrom ml3_tf.commands import main\nsys.exit(main())\n")
    command = [sys.executable, *(["-m", "ml3_tf"] if how == "module" else [str(script)])]
    arguments = ["show", "sine"] if how == "module" else ["show", "cosine"]
    process = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    if how == "module":
        assert (process.returncode, process.stderr) == (0, "") and "loss ≈" in process.stdout
    else:
        assert (process.returncode, process.stdout) == (1, "")
        assert process.stderr.startswith("There is no learned loss 'cosine'.") and process.stderr.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["card", "sine"]) == 0


@pytest.mark.parametrize("line", re.findall(r"^ml3-tf (.*)$", GUIDE, re.MULTILINE))
def test_commands_of_the_guide_run(run, line):
    code, out, err = run(*shlex.split(line))
    assert (code, err) == (0, "") and out


def test_the_guide_shows_what_the_command_prints(run):
    [shown] = re.findall(r"```console\n\$ ml3-tf show sine\n(.*?)```", GUIDE, re.DOTALL)
    assert run("show", "sine")[1] == shown
    for name in SUBCOMMANDS:
        assert f"| `ml3-tf {name}" in GUIDE
