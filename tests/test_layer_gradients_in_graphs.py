"""The meta-gradient through Keras's layers in a graph, as users run it."""

import pytest
from layer_cases import ALL_LAYERS, LAYERS, RECURRENT, Case

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("float64")]


# Recurrent ones take a quarter of a minute to trace three times; `test_layer_gradients` takes three steps eagerly.
FEW_STEPS = [(name, 1) for name in LAYERS] + [(name, 3) for name in LAYERS if name not in RECURRENT]


@pytest.mark.parametrize(("name", "num_steps"), FEW_STEPS)
def test_it_is_right_over_a_few_steps(name, num_steps):
    case = Case(*LAYERS[name], num_steps=num_steps)
    assert case.relative_error(case.gradients("graph")) < 1e-6


@pytest.mark.parametrize("name", ALL_LAYERS)
def test_it_is_right_over_many_steps(name):
    """Through many steps, the gradient is a sweep."""
    case = Case(*ALL_LAYERS[name], num_steps=8)
    assert case.relative_error(case.gradients("graph")) < 1e-6
