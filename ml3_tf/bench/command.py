"""The command `python -m ml3_tf.bench`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ml3_tf.extras import needed_for

FINE, FAILED = 0, 1  # 2 is tyro's, for a command line that is not valid
DESCRIPTION = """Compare losses: each trains fresh models of each task, with the same budgets.

    python -m ml3_tf.bench sine                   a shipped loss against those of Keras and of the literature
    python -m ml3_tf.bench my_loss --seeds 10     an exported loss, by its folder

It writes a JSON for each loss, task and seed, a table and a figure.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        arguments: The arguments behind the name of the command. Default `None`: those of this process.

    Returns:
        0 if all is well, 1 if a loss was not found or does not fit, or a package is missing.

    Raises:
        SystemExit: The command line is not valid (code 2), or asks for help (code 0).
    """
    try:
        with needed_for("`python -m ml3_tf.bench`", "tyro", extra="cli"):
            import tyro
        from ml3_tf.bench.benchmark import BenchmarkSettings, run_benchmark
    except ImportError as error:
        print(error, file=sys.stderr)
        return FAILED
    settings: BenchmarkSettings = tyro.cli(
        BenchmarkSettings, prog="python -m ml3_tf.bench", description=DESCRIPTION, args=arguments
    )
    try:
        run_benchmark(settings)
        print(f"Report: {renew_report(settings.report_dir)}")
    except (OSError, ValueError, ImportError) as error:  # not found, refused, or a package is missing
        print(error, file=sys.stderr)
        return FAILED
    return FINE


def renew_report(folder: Path) -> Path:
    """Writes the report of all results in a folder, of this run and of earlier ones; returns its path."""
    from ml3_tf.bench.report import write_report
    from ml3_tf.bench.results import read_results, read_sources

    results = read_results(folder / "losses")
    if not results:
        raise ValueError(f"No loss has run on any task, so there is nothing to report. Received: '{folder}'")
    return write_report(results, read_sources(folder / "losses"), folder)
