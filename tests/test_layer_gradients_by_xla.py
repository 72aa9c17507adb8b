"""The meta-gradient through Keras's layers, compiled by XLA."""

import pytest
from layer_cases import ALL_LAYERS, Case

# XLA draws other random numbers from the same seed.
RANDOM = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("AlphaDropout", "GaussianNoise", "GaussianDropout"),
)
# In float64, XLA has no second derivative of these, and TensorFlow says so.
WITHOUT = "MaxPooling1D", "MaxPooling2D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D"

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("float64")]


@pytest.mark.parametrize("name", [name for name in ALL_LAYERS if name not in WITHOUT])
def test_it_is_right(name):
    case = Case(*ALL_LAYERS[name], num_steps=8)
    assert not case.has_loop  # for loops see `InnerLoop.compile`
    assert case.relative_error(case.gradients("XLA"), mode="XLA" if name in RANDOM else "graph") < 1e-6
