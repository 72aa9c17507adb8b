"""The hosts of a cluster: they wait for each other before TensorFlow connects them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import ml3_tf

ANSWER_TIMEOUT = 10.0  # s, for one line of a host that has called
PAUSE = 0.2  # s, between two calls
MAX_BYTES = 65536  # of one line


def join_hosts(timeout: float = 600.0) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Waits until all hosts of `TF_CONFIG` are there, and returns the strategy that connects them.

    Call it at the start of the program, before TensorFlow does anything else, on each host. The environment variable
    says who they are, and which of them this one is::

        TF_CONFIG = '{"cluster": {"worker": ["host-0:12345", "host-1:12345"]}, "task": {"type": "worker", "index": 0}}'

    The first host listens until all others have called. So a host that never comes is named, when TensorFlow itself
    would wait for ever; and hosts with other versions are refused, whose results would differ in silence.

    Args:
        timeout: Seconds to wait for the others.

    Returns:
        A strategy for `trainer.distribute`.

    Raises:
        ValueError: `TF_CONFIG` is missing, or it does not name hosts as above; hosts with unequal versions.
        TimeoutError: Not all hosts were there in time; the message names those that were not.

    Example:

    >>> join_hosts()  # in an ordinary process
    Traceback (most recent call last):
    ValueError: `join_hosts` reads the hosts from the environment variable TF_CONFIG, ... Received: TF_CONFIG=None
    """
    addresses, number = read_cluster()
    if len(addresses) > 1:
        meet(addresses, number, timeout=timeout, versions=_versions())
    return tf.distribute.MultiWorkerMirroredStrategy()


def read_cluster() -> tuple[list[str], int]:
    """Returns the addresses "host:port" of all hosts in `TF_CONFIG`, and the number of this one.

    Raises:
        ValueError: `TF_CONFIG` is missing, or it does not name hosts.
    """
    text = os.environ.get("TF_CONFIG")
    try:
        config = json.loads(text or "")
        addresses, task = list(config["cluster"]["worker"]), config["task"]
        is_fine = set(config["cluster"]) == {"worker"} and task["type"] == "worker"
        is_fine = is_fine and 0 <= task["index"] < len(addresses) and all(int(a.rsplit(":", 1)[1]) for a in addresses)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        is_fine = False
    if not is_fine:
        raise ValueError(
            "`join_hosts` reads the hosts from the environment variable TF_CONFIG, such as '"
            '{"cluster": {"worker": ["host-0:12345", "host-1:12345"]}, "task": {"type": "worker", "index": 0}}'
            f"' on the first of two. Received: TF_CONFIG={text!r}"
        )
    return addresses, task["index"]


def meet(addresses: list[str], number: int, *, timeout: float, versions: dict[str, str]) -> None:
    """Returns once all hosts have called `meet`.

    Args:
        addresses: "host:port" of each host. The first one listens at its port until all others have called.
        number: The number of this host.
        timeout: Seconds to wait.
        versions: What all hosts must have in common: a version of each package.

    Raises:
        TimeoutError: Not all were there in time.
        ValueError: Other versions on another host.
    """
    deadline = time.monotonic() + timeout
    if number == 0:
        _receive(addresses, deadline, timeout=timeout, versions=versions)
    else:
        _call(addresses, number, deadline, timeout=timeout, versions=versions)


def _receive(addresses: list[str], deadline: float, *, timeout: float, versions: dict[str, str]) -> None:
    """The first host: waits for a line from each other one, then answers all of them."""
    callers: dict[int, tuple[socket.socket, dict[str, str]]] = {}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("", _split(addresses[0])[1]), backlog=len(addresses)))
        while len(callers) < len(addresses) - 1 and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                connection = stack.enter_context(listener.accept()[0])
                hello = _read_line(connection, timeout=ANSWER_TIMEOUT)
                if hello.get("number") in range(1, len(addresses)):
                    callers[hello["number"]] = connection, hello.get("versions", {})
        missing = [address for i, address in enumerate(addresses) if i and i not in callers]
        differing = {addresses[i]: theirs for i, (_, theirs) in callers.items() if theirs != versions}
        answer = {}
        if missing:
            answer = {"late": f"{', '.join(missing)} did not join {addresses[0]} within {timeout:g} s."}
        elif differing:
            answer = {"unequal": f"{addresses[0]} has {versions}, but {differing}."}
        for connection, _ in callers.values():
            with contextlib.suppress(OSError):
                connection.sendall(_line(answer or {"all": "here"}))
    _check(answer)


def _call(addresses: list[str], number: int, deadline: float, *, timeout: float, versions: dict[str, str]) -> None:
    """Another host: calls the first one until it answers."""
    answer = {}
    while not answer and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(_split(addresses[0]), timeout=left) as connection:
            connection.sendall(_line({"number": number, "versions": versions}))
            answer = _read_line(connection, timeout=left + ANSWER_TIMEOUT)
        if not answer:
            time.sleep(PAUSE)
    late = f"{addresses[0]}, the first host, did not answer {addresses[number]} within {timeout:g} s."
    _check(answer or {"late": late})


def _check(answer: dict[str, Any]) -> None:
    """Raises what the first host answers, unless all is well."""
    if "late" in answer:
        raise TimeoutError(
            f"{answer['late']} Start the program on all hosts of TF_CONFIG, and see that their ports can be reached."
        )
    if "unequal" in answer:
        raise ValueError(f"All hosts need the same versions, or their results differ: {answer['unequal']}")


def _split(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _read_line(connection: socket.socket, *, timeout: float) -> dict[str, Any]:
    """Returns a message; an empty one if what comes is none."""
    connection.settimeout(timeout)
    with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as lines:
        message = json.loads(lines.readline(MAX_BYTES))
        return message if isinstance(message, dict) else {}
    return {}


def _versions() -> dict[str, str]:
    modules = ml3_tf, keras, tf, np
    return {"python": platform.python_version(), **{module.__name__: module.__version__ for module in modules}}
