"""Tests of `ml3_tf.saving._manifest`: listed regular files are read; links, unlisted and giant files are refused."""

import os

import pytest

from ml3_tf import load_meta_loss
from ml3_tf.saving import _manifest
from ml3_tf.saving.errors import CorruptArtifactError, UnsafeArtifactError

INDEX = "variables/variables.index"


def assert_refused(folder, error, words):
    with pytest.raises(error, match=words):
        load_meta_loss(folder)


def test_bundle_files_are_returned(pristine):
    files = _manifest.read(pristine)
    assert files == {
        name: (pristine / name).read_bytes() for name in (_manifest.DESCRIPTION, _manifest.WEIGHTS, _manifest.SELF_TEST)
    }


@pytest.mark.parametrize(
    "name", ["saved_model.pb", INDEX, _manifest.DESCRIPTION, _manifest.WEIGHTS, _manifest.MANIFEST]
)
def test_links_to_files_are_refused(artifact, tmp_path, name):
    os.rename(artifact / name, tmp_path / "elsewhere")
    (artifact / name).symlink_to(tmp_path / "elsewhere")
    assert_refused(artifact, UnsafeArtifactError, f"{name}' is a link")


@pytest.mark.parametrize("name", ["variables", "assets.extra"])
def test_links_to_folders_are_refused(artifact, tmp_path, name):
    os.rename(artifact / name, tmp_path / "elsewhere")
    (artifact / name).symlink_to(tmp_path / "elsewhere")
    assert_refused(artifact, UnsafeArtifactError, "a link|no such file, folder or link")


def test_link_to_the_folder_of_a_version_is_refused(artifact):
    os.rename(artifact, artifact.parent / "real")
    artifact.symlink_to(artifact.parent / "real")
    assert_refused(artifact.parent, UnsafeArtifactError, "1' is a link")


@pytest.mark.parametrize(
    "name", ["evil.py", "variables/evil.so", "assets/table.txt", "assets.extra/meta_loss.npz", "d/"]
)
def test_unlisted_files_are_refused(artifact, name):
    path = artifact / name
    path.mkdir() if name.endswith("/") else path.write_text("x")
    assert_refused(artifact, UnsafeArtifactError, "has no such file, folder or link")


def test_known_file_that_is_not_listed_is_refused(artifact):
    warmup = artifact / "assets.extra" / "tf_serving_warmup_requests"
    requests = warmup.read_bytes()
    warmup.unlink()
    (artifact / _manifest.MANIFEST).unlink()
    _manifest.write(artifact)
    load_meta_loss(artifact)
    warmup.write_bytes(requests)
    assert_refused(artifact, UnsafeArtifactError, "warmup_requests' is not listed")


def test_missing_file_is_refused(artifact):
    (artifact / INDEX).unlink()
    assert_refused(artifact, CorruptArtifactError, f"{INDEX}' is listed in assets.extra/manifest.json, but missing")


@pytest.mark.parametrize("name", [_manifest.WEIGHTS, INDEX, _manifest.MANIFEST])
def test_a_folder_in_the_place_of_a_file_is_refused(artifact, name):
    (artifact / name).unlink()
    (artifact / name).mkdir()
    assert_refused(artifact, UnsafeArtifactError, f"{name}' is not a regular file")


def test_pipe_is_refused_without_waiting(artifact):
    (artifact / INDEX).unlink()
    os.mkfifo(artifact / INDEX)
    assert_refused(artifact, UnsafeArtifactError, f"{INDEX}' is not a regular file")


@pytest.mark.parametrize("name", [_manifest.MANIFEST, _manifest.DESCRIPTION, _manifest.WEIGHTS, "saved_model.pb"])
def test_giants_are_refused_unread(artifact, name):
    os.truncate(artifact / name, 2**40)  # sparse: it takes no space on the disk
    assert_refused(
        artifact, UnsafeArtifactError, f"{name}' is larger than its limit of {_manifest.MAX_SIZES[name]} bytes"
    )


@pytest.mark.parametrize(
    "name", ["saved_model.pb", INDEX, _manifest.WEIGHTS, _manifest.DESCRIPTION, _manifest.SELF_TEST]
)
def test_changed_byte_is_refused(artifact, name):
    data = bytearray((artifact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artifact / name).write_bytes(data)
    assert_refused(artifact, CorruptArtifactError, f"{name}' is not the exported file: expected .*sha256")


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda m: m["files"].update({"../../evil": m["files"][INDEX]}), UnsafeArtifactError, "lists .*evil"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"][INDEX]}), UnsafeArtifactError, "lists .*passwd"),
        (lambda m: m["files"].pop("saved_model.pb"), CorruptArtifactError, "does not list .'saved_model.pb'"),
        (lambda m: m["files"][INDEX].update(size=0), CorruptArtifactError, "is not the exported file"),
        (lambda m: m["files"][INDEX].update(size=2**30), CorruptArtifactError, "expected 'size' of 'variables"),
        (lambda m: m["files"][INDEX].update(sha256="0"), CorruptArtifactError, "64 hexadecimal digits"),
        (lambda m: m["files"][INDEX].update(mode=7), UnsafeArtifactError, "unknown keys .'mode'"),
        (lambda m: m.update(signature="me"), UnsafeArtifactError, "unknown keys .'signature'"),
        (lambda m: m.update(format_version=1), CorruptArtifactError, "expected 'format_version'"),
        (lambda m: m.update(format_version=True), CorruptArtifactError, "expected 'format_version'"),
        (lambda m: m.pop("format_version"), CorruptArtifactError, "lacks the keys"),
    ],
)
def test_manifests_that_lie_are_refused(artifact, edit_json, change, error, words):
    edit_json(artifact, _manifest.MANIFEST, change)
    assert_refused(artifact, error, words)


def test_file_problems_stay_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _manifest.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/assets.extra/manifest.json"):
        _manifest.read(tmp_path)
