"""Tests of the images that recipes read, and of what is said where they are missing."""

import gzip

import keras
import numpy as np
import pytest
from fashion_files import write_fashion, write_idx

from ml3_tf.bench import image_data


def test_digits_are_mixed_and_scaled():
    digits = image_data.load_digits()
    assert digits.x.shape == (5000, 28, 28) and digits.x.dtype == np.float32
    assert (digits.x.min(), digits.x.max()) == (0, 1)
    np.testing.assert_array_equal(np.bincount(digits.y), [500] * 10)
    assert len(set(digits.y[:50])) == 10


def test_images_at_half_the_size_are_means_and_targets_are_one_hot():
    x = np.zeros((1, 28, 28), "float32")
    x[0, 1, 2:4] = 1
    assert image_data.halve(x)[0, 0, :3].tolist() == [0, 0.5, 0]
    assert image_data.one_hot(np.array([2]))[0].tolist() == [0, 0, 1] + [0] * 7


def test_fashion_is_read_from_a_folder(tmp_path):
    train, test = image_data.load_fashion(write_fashion(tmp_path))
    assert (train.x.shape, test.x.shape) == ((300, 28, 28), (60, 28, 28))
    np.testing.assert_array_equal(test.y, np.arange(60) % 10)
    assert train.x[3, 0, 6] == np.float32(200 / 255) and train.x[3, 0, 5] < 0.2
    np.testing.assert_array_equal(test.take(np.array([7, 1])).y, [7, 1])


def test_a_missing_or_damaged_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.gz'. `apt-get install dataset-fashion-mnist`"):
        image_data.load_fashion(tmp_path)
    images = write_fashion(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:50])
    with pytest.raises(ValueError, match="is not a whole gzip file"):
        image_data.load_fashion(tmp_path)
    for wrong in (gzip.decompress(whole)[:-1], b"", b"\0\0\x0d\3" + gzip.decompress(whole)[4:]):
        images.write_bytes(gzip.compress(wrong))
        with pytest.raises(ValueError, match="is not an IDX file of bytes with 3 axes"):
            image_data.load_fashion(tmp_path)
    write_idx(images, np.zeros((300, 28, 27), np.uint8))
    with pytest.raises(ValueError, match=r"Received for 'train': images \(300, 28, 27\), classes \(300,\) up to 9"):
        image_data.load_fashion(tmp_path)


def test_without_a_folder_keras_is_asked_and_its_failure_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(image_data, "DEBIAN_FOLDER", tmp_path / "nowhere")
    x, y = np.full((2, 28, 28), 255, np.uint8), np.array([3, 4], np.uint8)
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", lambda: ((x, y), (x[:1], y[:1])))
    train, test = image_data.load_fashion()
    assert train.x.max() == 1 and test.y.tolist() == [3]

    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(ConnectionError, match="not on this machine.* `apt-get install .*--data-path.*URL fetch fail"):
        image_data.load_fashion()


def test_an_overlaid_image_is_mostly_its_own_and_partly_of_the_class_beside_it():
    images = image_data.Images(np.eye(10, dtype="float32")[np.arange(40) % 10].reshape(40, 1, 10), np.arange(40) % 10)
    laid = image_data.overlay(images, seed=1)
    np.testing.assert_array_equal(laid.y, images.y)
    own = laid.x[np.arange(40), 0, images.y]
    np.testing.assert_allclose(laid.x[np.arange(40), 0, images.y ^ 1], 1 - own, atol=1e-6)
    assert 0.5 <= own.min() < 0.6 and 0.9 < own.max() <= 1
