"""Runs a command without TensorFlow's notices of drivers and plugins; errors and warnings of Python stay.

    python tools/quiet.py python recipes/sine_regression.py

TensorFlow writes some of them whatever TF_CPP_MIN_LOG_LEVEL says, since they come before its log is set up. The exit
status is that of the command.
"""

import re
import subprocess
import sys

# A line of TensorFlow's log: its level, its time, its process, a C++ file and its line.
NOTICE = re.compile(r"[IW]\d{4} [^\]]*\.(cc|h):\d+\]|[IWE]\d{4,} [^\]]*(cuda|gpu)[^\]]*\.(cc|h):\d+\]")
OTHERS = ("WARNING: All log messages before absl::InitializeLog()", "To enable the following instructions:")


def is_notice(line: str) -> bool:
    """Returns whether a line is a notice of TensorFlow's start, or of drivers that are not there."""
    return bool(NOTICE.match(line)) or line.startswith(OTHERS)


def main(command: list[str]) -> int:
    """Runs the command and returns its exit status."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not is_notice(line):
                print(line, end="", file=sys.stderr, flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
