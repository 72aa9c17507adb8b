"""Tests of `ml3_tf.saving.verify`: each check of an export is named, and the one that fails says why."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from ml3_tf import load_meta_loss
from ml3_tf.saving import ArtifactError, _manifest, verify_export

NUM_CHECKS = 2 + (len(_manifest.MAX_SIZES) - 1) + 4  # manifest and names; each file but the manifest; the loss itself


def failed_check(folder, **kwargs):
    """The check that failed, after all before it passed; loading must refuse the export for the same reason."""
    verification = verify_export(folder, **kwargs)
    assert not verification.passed
    *passed, failed = verification.checks
    assert all(check.passed and check.reason == "" for check in passed)
    with pytest.raises((ArtifactError, OSError)) as refusal:
        load_meta_loss(folder, **kwargs)
    assert failed.reason == str(refusal.value)
    return failed


def test_a_whole_export_passes_every_check(artifact):
    verification = verify_export(artifact)
    assert verification.passed and verification.folder == str(artifact)
    assert len(verification.checks) == NUM_CHECKS
    assert verification == verify_export(artifact.parent) == verify_export(artifact.parent, version=1)
    assert verification.sha256 == hashlib.sha256((artifact / _manifest.MANIFEST).read_bytes()).hexdigest()
    assert load_meta_loss(artifact, expected_sha256=verification.sha256) is not None


@pytest.mark.parametrize("name", sorted(set(_manifest.MAX_SIZES) - {_manifest.MANIFEST}))
def test_one_changed_byte_is_found_in_its_file(artifact, name):
    data = bytearray((artifact / name).read_bytes())
    data[-1] ^= 1
    (artifact / name).write_bytes(data)
    check = failed_check(artifact)
    assert check.name == f"size and SHA-256: {name}"
    assert f"{name}' is not the exported file" in check.reason


def test_each_later_check_fails_under_its_own_name(artifact, edit_json):
    edit_json(artifact, _manifest.DESCRIPTION, lambda description: description.update(mode="per_galaxy"))
    assert failed_check(artifact).name.startswith("description")


def test_weights_that_are_not_finite_fail(artifact):
    weights = safetensors.numpy.load_file(artifact / _manifest.WEIGHTS)
    weights["layers.0.kernel"] = np.full_like(weights["layers.0.kernel"], np.nan)
    safetensors.numpy.save_file(weights, artifact / _manifest.WEIGHTS)
    _manifest.write(artifact)
    assert failed_check(artifact).name.startswith("weights")


def test_other_weights_fail_the_self_test(artifact):
    weights = safetensors.numpy.load_file(artifact / _manifest.WEIGHTS)
    weights["layers.0.kernel"] = weights["layers.0.kernel"] * 2
    safetensors.numpy.save_file(weights, artifact / _manifest.WEIGHTS)
    _manifest.write(artifact)
    assert failed_check(artifact).name.startswith("self-test")


def test_words_that_do_not_fit_together_build_no_network(artifact, edit_json):
    edit_json(artifact, _manifest.DESCRIPTION, lambda description: description.update(input_scale=[1.0] * 7))
    assert failed_check(artifact).name.startswith("network")


def test_files_that_are_missing_or_too_many_fail(artifact):
    (artifact / "fingerprint.pb").rename(artifact.parent / "kept")
    assert failed_check(artifact).name.startswith("files")
    shutil.copy(artifact.parent / "kept", artifact / "fingerprint.pb")
    (artifact / "notes.txt").write_text("more")
    check = failed_check(artifact)
    assert check.name.startswith("files") and "notes.txt" in check.reason


@pytest.mark.parametrize("text", ["{", json.dumps({"format_version": 99})])
def test_a_manifest_that_is_broken_or_newer_fails(artifact, text):
    (artifact / _manifest.MANIFEST).write_text(text)
    assert failed_check(artifact).name == f"manifest: {_manifest.MANIFEST}"


def test_another_manifest_than_the_pinned_one_fails(artifact):
    check = failed_check(artifact, expected_sha256="0" * 64)
    assert check.name.startswith("manifest") and "not the pinned manifest" in check.reason
    with pytest.raises(ValueError, match="`expected_sha256` must be 64 hexadecimal digits"):
        verify_export(artifact, expected_sha256="abc")


def test_an_export_without_a_manifest_fails_and_has_no_sha256(artifact):
    (artifact / _manifest.MANIFEST).unlink()
    check = failed_check(artifact)
    assert "is not a learned loss of ml3_tf: expected the file assets.extra/manifest.json" in check.reason
    assert verify_export(artifact).sha256 is None


def test_what_is_not_there_is_not_verified(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no learned loss 'nonsense'"):
        verify_export("nonsense")
    with pytest.raises(FileNotFoundError, match="is not the folder of an exported loss.*a folder without versions"):
        verify_export(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no version 7. Versions found: \[1\]"):
        verify_export("sine", version=7)
