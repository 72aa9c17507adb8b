"""Tests of `ml3_tf.quiet_start`: a command hides the notices of C++, and a program of others keeps its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml3_tf.quiet_start import is_own_command

ROOT = Path(__file__).resolve().parents[1]
WRITES = """
import os, runpy, sys
runpy.run_path(sys.argv[1])["hide_notices"]()
os.write(2, b"notice of C++\\n")
print("warning of Python", file=sys.stderr)
print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
raise SystemExit("error")
"""


@pytest.mark.parametrize(
    "argv, orig_argv, is_own",
    [
        (["/venv/bin/ml3-tf", "list"], ["python", "/venv/bin/ml3-tf", "list"], True),
        (["-m", "list"], ["python", "-X", "utf8", "-m", "ml3_tf", "list"], True),
        (["-m"], ["python", "-m", "other", "ml3_tf"], False),
        (["/venv/bin/pytest", "ml3_tf"], ["python", "-m", "pytest", "ml3_tf"], False),
        (["-c"], ["python", "-c", "import ml3_tf"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_a_command_is_known_by_its_name(argv, orig_argv, is_own):
    assert is_own_command(argv, orig_argv) is is_own


@pytest.mark.parametrize("level, shown", [(None, False), ("1", False), ("0", True)])
def test_notices_are_hidden_unless_all_are_asked_for(level, shown):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    command = [sys.executable, "-c", WRITES, str(ROOT / "ml3_tf" / "quiet_start.py")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    lines = process.stderr.splitlines()
    assert process.returncode == 1 and process.stdout == f"{level or 2}\n"
    assert ("notice of C++" in lines) is shown
    assert lines[-2:] == ["warning of Python", "error"]
