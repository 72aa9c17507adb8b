"""`tools/quiet.py` hides TensorFlow's notices alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from quiet import is_notice

QUIET = Path(__file__).parents[2] / "tools" / "quiet.py"


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795667978.177212   27074 port.cc:153] oneDNN custom operations are on.",
        "W0000 00:00:1795667978.178814   27074 cudart_stub.cc:31] Could not find cuda drivers on your machine.",
        "E0000 00:00:1795664100.265366    6494 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
        "To enable the following instructions: AVX2 AVX512F, in other operations, rebuild TensorFlow",
    ],
)
def test_notices_are_found(line):
    assert is_notice(line)


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "UserWarning: The meta-gradient explodes",
        "E0000 00:00:1795664100.265366    6494 executor.cc:12] Out of memory",
        "FloatingPointError: The meta-gradient of phi is not finite",
    ],
)
def test_errors_and_warnings_are_none(line):
    assert not is_notice(line)


def test_a_command_keeps_its_output_and_its_status():
    code = "import sys; print('out'); print('I0000 0:0 1 port.cc:1] x', file=sys.stderr); print('bad', file=sys.stderr)"
    command = [sys.executable, str(QUIET), sys.executable, "-c", f"{code}; sys.exit(3)"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (3, "out\n", "bad\n")
