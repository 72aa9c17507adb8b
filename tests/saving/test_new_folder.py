"""Tests of `ml3_tf.saving._new_folder`: whole or absent, whatever other processes and threads do."""

import itertools
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml3_tf.saving import _new_folder
from ml3_tf.saving._new_folder import publish, unfinished_folder

# A process that makes a folder and then waits; it imports the module alone, without TensorFlow.
WAITING = f"""
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("new_folder", {_new_folder.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.unfinished_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half").write_text("of it")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other_process(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WAITING, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def numbers():
    return map(str, itertools.count(1))


def test_a_folder_appears_under_its_name_alone(tmp_path):
    with unfinished_folder(tmp_path) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("all of it")
        assert publish(folder, numbers()) == tmp_path / "1"
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "part" / "file").read_text() == "all of it"


def test_a_folder_that_is_not_published_is_gone(tmp_path):
    with pytest.raises(KeyboardInterrupt), unfinished_folder(tmp_path) as folder:
        (folder / "half").write_text("of it")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_taken_meanwhile_is_left_alone(tmp_path):
    with unfinished_folder(tmp_path) as folder:
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "of another").touch()
        assert publish(folder, numbers()) == tmp_path / "2"
    assert os.listdir(tmp_path / "1") == ["of another"]


def test_without_a_free_name_nothing_is_left(tmp_path):
    (tmp_path / "1" / "taken").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="All names are taken"), unfinished_folder(tmp_path) as folder:
        publish(folder, ["1"])
    assert os.listdir(tmp_path) == ["1"]


def test_what_a_killed_process_left_is_removed(tmp_path, other_process):
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert [len(files) for _, _, files in os.walk(tmp_path)] == [0, 1]
    with unfinished_folder(tmp_path) as folder:
        assert os.listdir(tmp_path) == [folder.name]


def test_the_folder_of_a_living_process_stays(tmp_path, other_process):
    with unfinished_folder(tmp_path):
        assert len(os.listdir(tmp_path)) == 2
    assert len(os.listdir(tmp_path)) == 1
    assert other_process.poll() is None


def test_many_at_once_all_get_a_name_of_their_own(tmp_path):
    def make(number):
        with unfinished_folder(tmp_path) as folder:
            (folder / "number").write_text(str(number))
            return publish(folder, numbers())

    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(make, range(64)))
    assert sorted(os.listdir(tmp_path), key=int) == [str(n) for n in range(1, 65)]
    assert [int((path / "number").read_text()) for path in paths] == list(range(64))


def test_an_error_that_is_no_taken_name_is_passed_on(tmp_path):
    (tmp_path / "1").write_text("a file")
    with pytest.raises(NotADirectoryError, match="/1'"), unfinished_folder(tmp_path) as folder:
        publish(folder, numbers())
    assert (tmp_path / "1").read_text() == "a file"
