"""Tests of `tools/notebooks.py` and `docs/notebooks`: the notebooks run, and hold what they show."""

import nbformat
import pytest
from notebooks import FOLDER, METADATA, joined, run_notebook

PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]


def test_there_are_four():
    assert NAMES == ["look_inside", "one_data_set", "own_tables", "use_a_loss"]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_holds_its_outputs_and_nothing_of_the_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    text = path.read_text(encoding="utf-8")
    assert not any(part in text for part in ("/tmp/", "/home/", "/root/", "site-packages", "<Figure size"))


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_runs(path):
    committed = [cell.source for cell in nbformat.read(path, as_version=4).cells]
    notebook = run_notebook(path)
    assert [cell.source for cell in notebook.cells] == committed
    shown = [output.output_type for cell in notebook.cells for output in cell.get("outputs", [])]
    assert shown and "error" not in shown


def test_printed_lines_are_one_text_without_times_and_notices():
    stream = lambda text, name="stdout": nbformat.v4.new_output("stream", name=name, text=text)
    outputs = [
        stream("Epoch 1/2\n"),
        stream("20/20 - 24s - 1s/step - loss: 1.0 - a: 3s\n"),
        stream("noise\n", "stderr"),
        stream("INFO:tensorflow:Assets written to: here\n"),
        nbformat.v4.new_output("execute_result", {"text/plain": "True"}),
    ]
    text, result = joined(outputs)
    assert text.text == "Epoch 1/2\n20/20 - loss: 1.0 - a: 3s\n"
    assert result.data == {"text/plain": "True"}
    assert joined([stream("noise\n", "stderr")]) == []
