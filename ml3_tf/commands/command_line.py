"""The subcommands of `ml3-tf` with their flags, which tyro reads off the dataclasses here."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml3_tf import saving
from ml3_tf.commands import doctor, losses, printing
from ml3_tf.extras import needed_for

FINE, FAILED = 0, 1  # 2 is tyro's, for a command line that is not valid
DESCRIPTION = """Learned loss functions: list, show and check losses, and check the installation.

Exit codes: 0 all is well, 1 a check failed or something was not found, 2 the command line is not valid.
Completion for your shell: ml3-tf --tyro-print-completion bash (or zsh, tcsh).
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a command found.

    Args:
        data: The findings, as JSON can hold them.
        text: The same for a terminal.
        passed: Whether all is well.
    """

    data: Any
    text: str
    passed: bool = True


@dataclasses.dataclass(frozen=True)
class Command:
    """Base of the subcommands: the fields are flags, and required ones are positional arguments."""

    json: bool = dataclasses.field(default=False, kw_only=True)
    """Print JSON, for other programs."""

    def run(self) -> Report:
        """Returns what the command found."""
        raise NotImplementedError(f"{type(self).__name__} must define `run`.")


@dataclasses.dataclass(frozen=True)
class List(Command):
    """List the shipped losses: name, versions, purpose and features."""

    def run(self) -> Report:
        found = losses.list_losses()
        return Report([dataclasses.asdict(loss) for loss in found], printing.losses_text(found))


@dataclasses.dataclass(frozen=True)
class Card(Command):
    """Print the model card of a shipped loss: training, results and limits."""

    name: str
    """Name of a shipped loss."""

    def run(self) -> Report:
        card = losses.read_card(self.name)
        return Report(dataclasses.asdict(card), card.text.rstrip())


@dataclasses.dataclass(frozen=True)
class Show(Command):
    """Show what a loss has learned: its formula, and its figure in a file."""

    name_or_folder: str
    """Name of a shipped loss, or folder of an exported one."""

    output: Path | None = None
    """File for the figure: .png, .svg or .pdf."""

    fixed: str | None = None
    """For a loss of many features, JSON with their values: null leaves one free. '{"state": [0.1, 0.2]}'"""

    def run(self) -> Report:
        fixed = losses.parse_fixed(self.fixed)
        shown = losses.show_loss(self.name_or_folder, output=self.output, fixed=fixed)
        return Report(dataclasses.asdict(shown), printing.shown_text(shown))


@dataclasses.dataclass(frozen=True)
class Check(Command):
    """Check an export: manifest, sizes and SHA-256 of its files, description, weights, self-test."""

    folder: str
    """Folder of an exported loss or of one version, or name of a shipped loss."""

    version: int | None = None
    """Number of the version. By default the latest."""

    sha256: str | None = None
    """SHA-256 that the manifest must have."""

    def run(self) -> Report:
        version = "latest" if self.version is None else self.version
        found = saving.verify_export(self.folder, version=version, expected_sha256=self.sha256)
        data = {"passed": found.passed, **dataclasses.asdict(found)}
        return Report(data, printing.verification_text(found), found.passed)


@dataclasses.dataclass(frozen=True)
class Doctor(Command):
    """Check the installation: versions, backend, devices, extras, shipped losses."""

    def run(self) -> Report:
        diagnosis = doctor.diagnose()
        data = {"passed": diagnosis.passed, **dataclasses.asdict(diagnosis)}
        return Report(data, printing.diagnosis_text(diagnosis), diagnosis.passed)


SUBCOMMANDS: dict[str, type[Command]] = {"list": List, "card": Card, "show": Show, "check": Check, "doctor": Doctor}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command `ml3-tf` and returns its exit code.

    Args:
        arguments: The arguments behind the name of the command. Default `None`: those of this process.

    Returns:
        0 if all is well, 1 if a check failed or something was not found.

    Raises:
        SystemExit: The command line is not valid (code 2), or asks for help (code 0).

    Example:

    >>> main(["check", "sine"])  # doctest: +ELLIPSIS
    ok      manifest: assets.extra/manifest.json
    ...
    0
    """
    try:
        with needed_for("`ml3-tf`", "tyro", extra="cli"):
            import tyro
    except ImportError as error:
        print(error, file=sys.stderr)
        return FAILED
    command: Command = tyro.extras.subcommand_cli_from_dict(
        dict(SUBCOMMANDS),
        prog="ml3-tf",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    try:
        return _print_report(command)
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def _print_report(command: Command) -> int:
    try:
        report = command.run()
    except (OSError, ValueError, ImportError) as error:  # not found, refused, or a package is missing
        if not command.json:
            print(error, file=sys.stderr)
            return FAILED
        report = Report({"error": type(error).__name__, "message": str(error)}, "", False)
    print(printing.to_json(report.data) if command.json else report.text, flush=True)
    return FINE if report.passed else FAILED
