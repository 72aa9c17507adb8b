"""A closed form near a loss, written in one line."""

import dataclasses
import html
import math


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A closed form near a loss, in the error e = y_pred - y_true; `str` gives it in one line.

    Args:
        terms: The terms as they are written; the one that contributes most to the gradient comes first.
        coefficients: The coefficient of each term, in units of the loss per unit of the term.
        r_squared: Share of the squared gradient that the terms account for; 1 is all of it.
        region: Where this holds, in words.

    Example:

    >>> print(Explanation(("e²", "|e|"), (2.0, -0.5), 1.0, "y in [-5, 5]"))
    loss ≈ 2.00·e² − 0.500·|e| (R² = 1.000 for y in [-5, 5])
    """

    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    r_squared: float
    region: str

    def __str__(self) -> str:
        signs = ["−" if coefficient < 0 else "+" for coefficient in self.coefficients]
        numbers = [_three_digits(abs(coefficient)) for coefficient in self.coefficients]
        form = " ".join(f"{sign} {number}·{term}" for sign, number, term in zip(signs, numbers, self.terms))
        form = f"−{form[2:]}" if form.startswith("−") else form.removeprefix("+ ")
        return f"loss ≈ {form or 0} (R² = {self.r_squared:.3f} for {self.region})"

    def _repr_html_(self) -> str:
        """Returns the line as a notebook shows it."""
        return f"<code>{html.escape(str(self))}</code>"


def _three_digits(number: float) -> str:
    """Returns a number >= 0 with three significant digits, without an exponent where that is short."""
    rounded = float(f"{number:.2e}")
    if not 1e-3 <= rounded < 1e5:
        return f"{rounded:.2e}"
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
