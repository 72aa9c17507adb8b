"""Tests of `ml3_tf.inspection.explanation`: one line, in a terminal and in a notebook."""

import pytest

from ml3_tf.inspection import Explanation


@pytest.mark.parametrize(
    ("coefficients", "form"),
    [
        ((3.104, -0.42), "3.10·e² − 0.420·|e|"),
        ((-3.0, 0.0123), "−3.00·e² + 0.0123·|e|"),
        ((0.9999, 1729.4), "1.00·e² + 1730·|e|"),
        ((123456.0, -1.5e-5), "1.23e+05·e² − 1.50e-05·|e|"),
        ((0.0, 45.67), "0.00e+00·e² + 45.7·|e|"),
    ],
)
def test_the_line_has_three_digits_and_signs(coefficients, form):
    explanation = Explanation(("e²", "|e|"), coefficients, 0.98765, "y in [-5, 5]")
    assert str(explanation) == f"loss ≈ {form} (R² = 0.988 for y in [-5, 5])"


def test_a_notebook_shows_the_line_as_text():
    explanation = Explanation(("|e|<b>",), (1.0,), 0.5, "y in [-5, 5]")
    assert explanation._repr_html_() == "<code>loss ≈ 1.00·|e|&lt;b&gt; (R² = 0.500 for y in [-5, 5])</code>"
