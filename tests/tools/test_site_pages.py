"""Tests of `tools/site_pages.py` and `tools/site_docstrings.py`: what the site shows is what the checkout holds."""

import json
from pathlib import Path

import pytest
from site_docstrings import with_examples
from site_pages import (
    CODE,
    LINK,
    ROOT,
    as_markdown,
    gallery,
    lead,
    notebook_page,
    notebooks,
    page_of,
    pages,
    reference_page,
    runs_of,
    source_block,
    source_of,
)

import ml3_tf

PAGES = pages()


def test_every_recipe_example_and_card_has_a_page():
    for folder, pattern in (("recipes", "recipes/[a-z]*.py"), ("examples", "examples/[a-z]*.py")):
        for path in ROOT.glob(pattern):
            assert f"{folder}/{path.stem}.md" in PAGES
    for name in ml3_tf.list_meta_losses().names:
        assert f"losses/{name}.md" in PAGES


def test_the_reference_has_every_public_name():
    text = reference_page("ml3_tf")
    for name in ml3_tf.__all__:
        assert (f"::: ml3_tf.{name}\n" in text) == (not name.startswith("__"))
    assert "::: ml3_tf.datasets.tasks_from_arrays\n" in PAGES["reference/ml3_tf.datasets.md"]


def test_a_notebook_is_a_page_with_its_pictures():
    for path in notebooks():
        text, pictures = notebook_page(path)
        assert PAGES[f"notebooks/{path.stem}.md"] == text
        assert pictures and all(
            f"]({name})" in text and content[:4] == b"\x89PNG" for name, content in pictures.items()
        )
        assert f"({path.name})" in text


def test_the_gallery_shows_every_reported_run_with_its_command():
    text = gallery()
    for path in ROOT.glob("results/*/summary.json"):
        run = path.parent
        assert f"](../results/{run.name}/figure.png)" in text
        assert json.loads(path.read_text())["command"] in text
        assert all(f"](../results/{run.name}/{gif.name})" in text for gif in run.glob("*.gif"))


@pytest.mark.parametrize(
    ("link", "source", "page", "expected"),
    [
        ("../../examples/serving.py", "docs/guides/steps.md", "guides/steps.md", "../examples/serving.md"),
        ("docs/guides/steps.md", "README.md", "index.md", "guides/steps.md"),
        ("results/digits", "README.md", "index.md", "recipes/digits.md"),
        ("../results/pointmass_lives", "docs/results.md", "results.md", "recipes/pointmass.md"),
        ("../results/digits/figure.png", "docs/results.md", "results.md", "pictures/results/digits/figure.png"),
        ("meta_loss.png", "savedmodels/sine/README.md", "losses/sine.md", "../pictures/savedmodels/sine/meta_loss.png"),
        ("../digits", "savedmodels/sine/README.md", "losses/sine.md", "digits.md"),
        ("digits.py", "recipes/README.md", "recipes/index.md", "digits.md"),
        ("Makefile", "README.md", "index.md", "Makefile"),
        (
            "../../examples/serving.py",
            "docs/notebooks/use_a_loss.ipynb",
            "notebooks/use_a_loss.md",
            "../examples/serving.md",
        ),
        ("docs/notebooks/use_a_loss.ipynb", "README.md", "index.md", "notebooks/use_a_loss.md"),
    ],
)
def test_a_link_leads_to_the_page_that_shows_its_file(link, source, page, expected):
    assert lead(link, source, page) == expected
    assert source_of(page) == source


def test_links_elsewhere_stay_as_they_are():
    for text in ("[a](https://example.org/b)", "[a](#part)", "[a](mailto:b)"):
        assert LINK.search(text) is None
    assert LINK.search("[a](guide.md#part)").groups() == ("](", "guide.md", "#part", ")")
    assert page_of("Makefile") is None


def test_the_paper_is_beside_the_code_that_holds_it():
    names = CODE.findall((ROOT / "docs" / "paper.md").read_text(encoding="utf-8"))
    assert len(names) > 10
    blocks = {name: source_block(name) for name in names}
    assert "if num_steps" not in blocks["ml3_tf.MetaLoss.call"]
    assert "self.base.call(y_true, y_pred, weights) + values" in blocks["ml3_tf.MetaLoss.call"]
    assert blocks["ml3_tf.meta_gradient.sweep"].startswith(
        "`ml3_tf/meta_gradient.py`, `sweep`:\n\n```python\ndef sweep("
    )
    assert all(block.endswith("\n```") and '"""' not in block for block in blocks.values())
    with pytest.raises(ValueError, match="A page names code that is not there: `ml3_tf.gone`"):
        source_block("ml3_tf.gone")


def test_what_is_indented_in_a_docstring_is_kept():
    assert as_markdown("First.\n\n    python a.py   b\n\nLast\nline.") == (
        "First.\n\n```text\n    python a.py   b\n```\n\nLast\nline."
    )


def test_runs_of_one_recipe_stand_together():
    assert [run.name for run in runs_of("inverse_dynamics")] == ["inverse_dynamics_reacher", "inverse_dynamics_sawyer"]
    assert all(isinstance(run, Path) for run in runs_of("sine_lives"))


def test_examples_of_docstrings_become_the_section_that_griffe_reads():
    docstring = "Does it.\n\nExample: two of them.\n\n>>> f(2)\n4\n\nSource: somewhere."
    assert with_examples(docstring) == (
        "Does it.\n\nExamples:\n    two of them.\n\n    >>> f(2)\n    4\n\nSource: somewhere."
    )
    assert with_examples("Does it.\n\n>>> f(2)\n4") == "Does it.\n\nExamples:\n    >>> f(2)\n    4"
    assert with_examples("Does it.") == "Does it."
