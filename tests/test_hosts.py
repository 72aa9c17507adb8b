"""Tests of `ml3_tf.hosts`: hosts wait for each other, and two of them learn what one learns."""

import concurrent.futures
import json
import socket
import subprocess
import sys
import threading

import distributed_runs
import numpy as np
import pytest

from ml3_tf import join_hosts
from ml3_tf.hosts import meet, read_cluster

VERSIONS = {"ml3_tf": "1.0", "tensorflow": "2.0"}


def free_addresses(count):
    with_ports = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{listener.getsockname()[1]}" for listener in with_ports]
    for listener in with_ports:
        listener.close()
    return addresses


def config_of(addresses, index):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def meet_all(addresses, present, *, timeout=30.0, versions=()):
    """Lets hosts meet, each in a thread; returns their errors, `None` where there is none."""
    versions = dict(versions)
    with concurrent.futures.ThreadPoolExecutor(len(present)) as pool:
        calls = [pool.submit(meet, addresses, i, timeout=timeout, versions=versions.get(i, VERSIONS)) for i in present]
        return [call.exception() for call in calls]


def test_hosts_meet():
    addresses = free_addresses(3)
    assert meet_all(addresses, [2, 0, 1]) == [None, None, None]


def test_a_host_that_does_not_come_is_named_on_all_others():
    addresses = free_addresses(3)
    for error in meet_all(addresses, [0, 1], timeout=4.0):
        assert isinstance(error, TimeoutError)
        assert f"{addresses[2]} did not join {addresses[0]} within 4 s. Start the program on all hosts" in str(error)


def test_a_first_host_that_does_not_come_is_named():
    addresses = free_addresses(2)
    [error] = meet_all(addresses, [1], timeout=1.0)
    assert isinstance(error, TimeoutError)
    assert f"{addresses[0]}, the first host, did not answer {addresses[1]} within 1 s." in str(error)


def test_unequal_versions_are_refused_on_all_hosts():
    addresses = free_addresses(3)
    for error in meet_all(addresses, [0, 1, 2], versions={1: {**VERSIONS, "tensorflow": "2.1"}}):
        assert isinstance(error, ValueError)
        assert f"'{addresses[1]}': {{'ml3_tf': '1.0', 'tensorflow': '2.1'}}" in str(error)
        assert addresses[2] not in str(error)


@pytest.mark.parametrize("line", [b"", b"GET / HTTP/1.1\r\n", b"[1]\n", b'{"number": 7}\n', b'{"number": 0}\n'])
def test_other_callers_are_not_taken_for_a_host(line):
    addresses = free_addresses(2)
    errors = []
    first = threading.Thread(target=lambda: errors.extend(meet_all(addresses, [0])))
    first.start()
    while first.is_alive():
        try:
            with socket.create_connection(("localhost", int(addresses[0].rsplit(":", 1)[1]))) as caller:
                caller.sendall(line)
            break
        except ConnectionRefusedError:
            continue
    assert meet_all(addresses, [1]) == [None]
    first.join()
    assert errors == [None]


@pytest.mark.parametrize(
    "config",
    [
        None,
        "worker",
        "[]",
        "{}",
        json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}),
        config_of(["a:1", "b:1"], 2),
        config_of(["a:1", "b:1"], "0"),
        config_of(["a", "b"], 0),
        config_of("a:1", 0),
        json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}),
        json.dumps({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}),
    ],
)
def test_what_does_not_name_hosts_is_refused(config, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="`join_hosts` reads the hosts from the environment variable TF_CONFIG"):
        join_hosts()


def test_the_hosts_of_tf_config_are_read(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_of(["a:1", "b:2"], 1))
    assert read_cluster() == (["a:1", "b:2"], 1)


# Programs on two hosts.


def start(folder, config=None):
    environment = distributed_runs.ENVIRONMENT
    return subprocess.Popen(
        [sys.executable, distributed_runs.__file__, "host", folder],
        env=environment if config is None else {**environment, "TF_CONFIG": config},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_hosts(folder):
    addresses = free_addresses(2)
    return [start(folder, config_of(addresses, i)) for i in range(2)]


def results_of(processes):
    ends = [process.communicate(timeout=600) for process in processes]
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(out.splitlines()[-1]) for out, _ in ends]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns."""
    [result] = results_of([start(tmp_path_factory.mktemp("alone"))])
    return result


def assert_equal(result, expected):
    for values, same in zip(result["phi"], expected["phi"], strict=True):
        np.testing.assert_allclose(values, same, rtol=1e-6, atol=1e-6)
    for name, curve in expected["curves"].items():
        np.testing.assert_allclose(result["curves"][name], curve, rtol=1e-5, err_msg=name)


@pytest.mark.long
def test_two_hosts_learn_what_one_learns(alone, tmp_path):
    for result in results_of(start_hosts(tmp_path)):
        assert_equal(result, alone)


def kill_after(number_of_steps, hosts, index):
    """Kills a host after so many steps of the other one, which TensorFlow then ends."""
    other = hosts[1 - index]
    for _ in range(number_of_steps):
        assert other.stdout.readline() == "step\n", other.stderr.read()
    hosts[index].kill()
    hosts[index].communicate()
    other.communicate(timeout=600)
    assert other.returncode != 0


@pytest.mark.long
def test_two_hosts_of_which_one_is_killed_go_on_and_so_does_one_alone(alone, tmp_path):
    kill_after(5, start_hosts(tmp_path), 1)  # the first epoch, of four steps, is saved
    kill_after(5, start_hosts(tmp_path), 0)  # and the second
    process = start(tmp_path)
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert out.count("step\n") == 8  # of 16
    assert_equal(json.loads(out.splitlines()[-1]), alone)
