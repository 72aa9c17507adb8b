"""Tests of the images of the benchmark."""

import numpy as np
import pytest
from fashion_files import write_fashion

from ml3_tf.bench import image_data
from ml3_tf.bench.tasks import images


@pytest.fixture
def fashion(monkeypatch, tmp_path):
    monkeypatch.setattr(image_data, "DEBIAN_FOLDER", write_fashion(tmp_path, 6000, 1200))
    images._load_fashion.cache_clear()
    yield
    images._load_fashion.cache_clear()


def test_clothes_come_with_right_and_with_wrong_labels_to_train_on(fashion):
    problems = images.draw_clothes(0)
    (x, y), (query_x, query_y) = problems.support, problems.query
    assert x.shape == (2, 5000, 784) and query_x.shape == (2, 1000, 784)
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_array_equal(query_y[0], query_y[1])
    assert np.mean(y[0].argmax(1) != y[1].argmax(1)) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(
    ("draw", "sizes"), [(images.draw_small_digits, (1200, 597)), (images.draw_digits, (4000, 1000))]
)
def test_digits_are_divided_and_scaled(draw, sizes):
    problems = draw(0)
    assert (problems.num_support[0], problems.num_query[0]) == sizes
    x = np.concatenate([problems.support[0][0], problems.query[0][0]])
    assert (x.min(), x.max()) == (0, 1)
    np.testing.assert_array_equal(np.unique(problems.query[1][0].argmax(1)), np.arange(10))
