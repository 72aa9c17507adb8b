"""Tests of `ml3_tf.manifest`: the listed regular files are read, once; links, strays and giants are refused."""

import os

import pytest

from ml3_tf import load_meta_loss, manifest
from ml3_tf.errors import CorruptArtefactError, UnsafeArtefactError

INDEX = "variables/variables.index"


def refuses(version, error, words):
    with pytest.raises(error, match=words):
        load_meta_loss(version)


def test_bundle_files_are_returned(pristine):
    files = manifest.read(pristine)
    assert files == {
        name: (pristine / name).read_bytes() for name in (manifest.DESCRIPTION, manifest.WEIGHTS, manifest.SELF_TEST)
    }


@pytest.mark.parametrize("name", ["saved_model.pb", INDEX, manifest.DESCRIPTION, manifest.WEIGHTS, manifest.MANIFEST])
def test_links_to_files_are_refused(artefact, tmp_path, name):
    os.rename(artefact / name, tmp_path / "elsewhere")
    (artefact / name).symlink_to(tmp_path / "elsewhere")
    refuses(artefact, UnsafeArtefactError, f"{name}' is a link")


@pytest.mark.parametrize("name", ["variables", "assets.extra"])
def test_links_to_folders_are_refused(artefact, tmp_path, name):
    os.rename(artefact / name, tmp_path / "elsewhere")
    (artefact / name).symlink_to(tmp_path / "elsewhere")
    refuses(artefact, UnsafeArtefactError, "a link|no such file, folder or link")


def test_link_to_the_version_is_refused(artefact):
    os.rename(artefact, artefact.parent / "real")
    artefact.symlink_to(artefact.parent / "real")
    refuses(artefact.parent, UnsafeArtefactError, "1' is a link")


@pytest.mark.parametrize(
    "name", ["evil.py", "variables/evil.so", "assets/table.txt", "assets.extra/meta_loss.npz", "d/"]
)
def test_unlisted_files_are_refused(artefact, name):
    path = artefact / name
    path.mkdir() if name.endswith("/") else path.write_text("x")
    refuses(artefact, UnsafeArtefactError, "has no such file, folder or link")


def test_known_file_that_is_not_listed_is_refused(artefact):
    warmup = artefact / "assets.extra" / "tf_serving_warmup_requests"
    requests = warmup.read_bytes()
    warmup.unlink()
    (artefact / manifest.MANIFEST).unlink()
    manifest.write(artefact)
    load_meta_loss(artefact)
    warmup.write_bytes(requests)
    refuses(artefact, UnsafeArtefactError, "warmup_requests' is not listed")


def test_missing_file_is_refused(artefact):
    (artefact / INDEX).unlink()
    refuses(artefact, CorruptArtefactError, f"{INDEX}' is listed in assets.extra/manifest.json, but missing")


def test_pipe_is_refused_without_waiting(artefact):
    (artefact / INDEX).unlink()
    os.mkfifo(artefact / INDEX)
    refuses(artefact, UnsafeArtefactError, f"{INDEX}' is no regular file")


@pytest.mark.parametrize("name", [manifest.MANIFEST, manifest.DESCRIPTION, manifest.WEIGHTS, "saved_model.pb"])
def test_giants_are_refused_unread(artefact, name):
    os.truncate(artefact / name, 2**40)  # sparse: the file system stores nothing of it
    refuses(artefact, UnsafeArtefactError, f"{name}' is larger than the {manifest.MAX_SIZES[name]} bytes")


@pytest.mark.parametrize("name", ["saved_model.pb", INDEX, manifest.WEIGHTS, manifest.DESCRIPTION, manifest.SELF_TEST])
def test_changed_byte_is_refused(artefact, name):
    data = bytearray((artefact / name).read_bytes())
    data[len(data) // 2] ^= 1
    (artefact / name).write_bytes(data)
    refuses(artefact, CorruptArtefactError, f"{name}' is not the file that was exported: expected .*sha256")


@pytest.mark.parametrize(
    "change, error, words",
    [
        (lambda m: m["files"].update({"../../evil": m["files"][INDEX]}), UnsafeArtefactError, "lists .*evil"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"][INDEX]}), UnsafeArtefactError, "lists .*passwd"),
        (lambda m: m["files"].pop("saved_model.pb"), CorruptArtefactError, "does not list .'saved_model.pb'"),
        (lambda m: m["files"][INDEX].update(size=0), CorruptArtefactError, "is not the file that was exported"),
        (lambda m: m["files"][INDEX].update(size=2**30), CorruptArtefactError, "expected 'size' of 'variables"),
        (lambda m: m["files"][INDEX].update(sha256="0"), CorruptArtefactError, "64 hexadecimal digits"),
        (lambda m: m["files"][INDEX].update(mode=7), UnsafeArtefactError, "unknown keys .'mode'"),
        (lambda m: m.update(signature="me"), UnsafeArtefactError, "unknown keys .'signature'"),
        (lambda m: m.update(format_version=1), CorruptArtefactError, "expected 'format_version'"),
        (lambda m: m.update(format_version=True), CorruptArtefactError, "expected 'format_version'"),
        (lambda m: m.pop("format_version"), CorruptArtefactError, "lacks the keys"),
    ],
)
def test_manifests_that_lie_are_refused(artefact, edit_json, change, error, words):
    edit_json(artefact, manifest.MANIFEST, change)
    refuses(artefact, error, words)


def test_file_problems_stay_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        manifest.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/assets.extra/manifest.json"):
        manifest.read(tmp_path)
