"""The first thing that `import ml3_tf` looks at: the command `ml3-tf` keeps TensorFlow's notices off the screen.

TensorFlow writes them while it is imported, some of them whatever `TF_CPP_MIN_LOG_LEVEL` says. So a command must be
quiet before Keras is imported, and `import ml3_tf` imports Keras.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def is_own_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Returns whether this process is `ml3-tf ...` or `python -m ml3_tf ...`.

    Args:
        argv: `sys.argv`; its first item is "-m" while Python looks for the module to run.
        orig_argv: `sys.orig_argv`, the arguments of Python itself.

    Example:

    >>> is_own_command(["/usr/bin/ml3-tf", "list"], ["python", "/usr/bin/ml3-tf", "list"])
    True
    >>> is_own_command(["-m", "list"], ["python", "-m", "ml3_tf", "list"])
    True
    >>> is_own_command(["train.py"], ["python", "train.py"])
    False
    """
    first = argv[0] if argv else ""
    if first == "-m":
        return orig_argv[list(orig_argv).index("-m") + 1] == "ml3_tf"
    return Path(first).name == "ml3-tf"


def hide_notices() -> None:
    """Leads what libraries in C++ write to stderr into nothing; `sys.stderr` of Python still writes to the screen.

    With TF_CPP_MIN_LOG_LEVEL=0, which asks for all notices, it does nothing.
    """
    if os.environ.setdefault(LOG_LEVEL, "2") == "0":
        return
    screen = os.dup(2)
    sys.stderr = open(screen, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
