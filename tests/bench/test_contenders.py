"""Tests of the losses that the benchmark compares: which tasks they fit, and how they are told apart."""

import keras
import pytest

import ml3_tf
from ml3_tf.bench.contenders import RIVALS, find_kind, find_misfit, fingerprint, load_contender
from ml3_tf.bench.literature import GeneralizedCrossEntropy
from ml3_tf.bench.tasks import TASKS
from ml3_tf.bench.tasks.policies import FinalDistance, SquaredFinalDistance


def test_every_rival_names_its_source_and_fits_a_kind():
    assert all(contender.source and contender.kinds and contender.name == name for name, contender in RIVALS.items())
    kinds = [kind for contender in RIVALS.values() for kind in contender.kinds]
    assert set(kinds) == {task.kind for task in TASKS.values()}


@pytest.mark.parametrize(
    ("name", "kinds", "recorded"),
    [
        ("sine", ("regression",), ("SGD", 0.001)),
        ("digits", ("classification",), ("SGD", 0.1)),
        ("inverse_dynamics_reacher", ("regression",), ("SGD", 0.01)),
        ("noisy_labels", ("classification",), ("Adam", 0.0005)),
        ("pointmass", ("pointmass",), ("SGD", 0.1)),
        ("reacher_model_based", ("arm",), ("SGD", 0.1)),
        ("reacher_demonstrations", ("arm",), ("SGD", 2.0)),
    ],
)
def test_the_facts_of_a_shipped_loss_decide(name, kinds, recorded):
    contender = load_contender(name)
    assert (contender.name, contender.kinds) == (name, kinds)
    assert contender.recorded == (recorded[0], pytest.approx(recorded[1]))


def test_a_folder_gives_its_name_and_one_without_facts_is_not_run_as_exported(make_loss, tmp_path):
    folder = make_loss(mode="per_output").export(tmp_path / "mine")
    for path in (folder, folder.parent):
        contender = load_contender(str(path))
        assert (contender.name, contender.kinds, contender.recorded) == ("mine", ("classification",), None)


@pytest.mark.parametrize("name", ["label_free", "shaped_sine", "mountain_car", "reacher_model_free"])
def test_a_loss_that_fits_no_task_is_refused_in_words(name):
    with pytest.raises(ValueError, match=f"no task for the loss '{name}'. Expected a loss of .* Received: features="):
        find_kind(ml3_tf.load_meta_loss(name))


def test_losses_of_another_width_are_left_out():
    assert find_misfit(keras.losses.MeanSquaredError(), TASKS["sines"]) == ""
    assert find_misfit(ml3_tf.MetaLoss.mlp(mode="per_output"), TASKS["digits_8x8"]) == ""
    assert find_misfit(ml3_tf.MetaLoss.mlp(), TASKS["sines"]) == ""
    assert find_misfit(ml3_tf.load_meta_loss("pointmass"), TASKS["pointmass"]) == ""
    assert "it sees 1 output(s), and the models have 10" == find_misfit(ml3_tf.MetaLoss.mlp(), TASKS["digits_8x8"])


def test_weights_and_settings_are_part_of_the_fingerprint(make_loss):
    digest = lambda loss: fingerprint(loss, TASKS["sines"])
    first, second = make_loss(), make_loss()
    assert digest(first) == digest(second)
    second.network.set_weights([2 * weights for weights in second.network.get_weights()])
    assert digest(first) != digest(second)
    of_classes = lambda q: fingerprint(GeneralizedCrossEntropy(q), TASKS["digits_8x8"])
    assert of_classes(0.7) == of_classes(0.7) != of_classes(0.5)
    losses = [ml3_tf.load_meta_loss(name) for name in ("reacher_model_based", "reacher_demonstrations")]
    of_policies = {fingerprint(loss, TASKS["arm_far"]) for loss in (*losses, FinalDistance(), SquaredFinalDistance())}
    assert len(of_policies) == 4
