"""Every command that a page or a docstring names is one that can be typed: its program exists, and takes its flags.

The commands themselves are run by other tests: recipes with `--smoke`, examples at toy size, notebooks as they are.
"""

import ast
import functools
import importlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from ml3_tf.commands.command_line import SUBCOMMANDS
from parts.settings import run_command

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for pattern in ("*.md", "docs/**/*.md", "recipes/*.md", "serving/*.md", "savedmodels/*/README.md")
    for page in ROOT.glob(pattern)
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:python|make|pip install|ml3-tf) \S[^`#\n]*")
SHELLS = ("", "bash", "console", "sh", "text")
PLACEHOLDERS = ("NAME", "X.Y.Z", "recipes/*.py", "TARGET")


def commands_of_pages():
    """Commands in backticks and in fenced blocks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [line for shell, body in FENCE.findall(text) if shell in SHELLS for line in body.splitlines()]
        yield from blocks + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def commands_of_docstrings():
    """Commands on lines of their own: `    python recipes/digits.py` and `Command: python examples/serving.py`."""
    for path in [*ROOT.glob("recipes/*.py"), *ROOT.glob("examples/*.py"), *ROOT.glob("tools/*.py")]:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in re.findall(r"^(?: {4}|Command: )(.*)$", docstring, re.MULTILINE):
            yield re.split(r" {2,}", line)[0]


LINES = {line.strip().removeprefix("$ ") for line in (*commands_of_pages(), *commands_of_docstrings())}
COMMANDS = sorted(
    match[0].strip()
    for line in LINES
    if (match := COMMAND.match(line))
    and not any(part in line for part in PLACEHOLDERS)
    and line.count("'") % 2 == 0  # otherwise it goes on in the next line
)


def test_commands_are_found():
    for known in ("make demo", "python recipes/digits.py --seeds 10", "python examples/own_tables.py", "make lint"):
        assert known in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_typed(command, monkeypatch):
    program, *words = [word for word in shlex.split(command) if "=" not in word.split("[")[0] or word[0] == "-"]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words) <= set(targets)
    elif program == "pip":
        check_extras(words)
    elif program == "ml3-tf":
        assert words[0] in SUBCOMMANDS or words[0].startswith("--")
    elif words[0] == "-c":
        compile(words[1], "command", "exec")
    elif words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert (ROOT / words[0]).is_file()
        if words[0].startswith("recipes/"):
            check_flags(Path(words[0]).stem, words[1:], monkeypatch)


def check_extras(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for listed in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(listed.split(",")) <= set(extras)


def check_flags(name, flags, monkeypatch):
    """The command line of a recipe is parsed, and the recipe is not run."""
    main, calls = importlib.import_module(name).main, []
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags])
    run_command(functools.wraps(main)(lambda *arguments, **settings: calls.append(settings)), description=None)
    assert len(calls) == 1
