"""Run the notebooks of `docs/notebooks`, and write what they show into them.

    python tools/notebooks.py                 all
    python tools/notebooks.py look_inside     one

The outputs are part of the files, so that the site shows them. Times, and what a machine says of itself, are left out.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
MOST_SECONDS = 1200  # of a cell, on a slow machine
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


TIMES = re.compile(r" - \d+m?s(?: - \d+\w*/step)?")
NOTICES = re.compile(r"^(?:INFO|WARNING):tensorflow:.*\n?", re.MULTILINE)


def run_notebook(path: Path) -> Any:
    """Returns a notebook with the outputs of its cells.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell fails.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # the kernel's: no word of drivers that are not there
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=MOST_SECONDS, record_timing=False, resources={"metadata": {"path": "."}})
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs: Sequence[Any]) -> list[Any]:
    """Returns the outputs of a cell, its printed lines as one text without times and notices."""
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    text = TIMES.sub("", NOTICES.sub("", text))
    shown = [output for output in outputs if output.output_type != "stream"]
    for data in (output.data for output in shown if "image/png" in output.get("data", {})):
        data.pop("text/plain", None)  # the size of the picture, in words
    return ([nbformat.v4.new_output("stream", name="stdout", text=text)] if text.strip() else []) + shown


def main(names: Sequence[str] = ()) -> None:
    """Runs the notebooks with these names, or all."""
    for path in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        notebook = run_notebook(path)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
