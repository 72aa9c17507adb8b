"""Tests of `ml3_tf.outer_loop._interrupts`: signals that are put off."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ml3_tf.outer_loop import _interrupts
from ml3_tf.outer_loop._interrupts import Interrupts

SIGNALS = signal.SIGINT, signal.SIGTERM


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_is_noted_until_the_run_leaves(capsys, number, error):
    with pytest.raises(error) as raised, Interrupts("Go on by this.") as interrupts:
        assert interrupts.received is None
        os.kill(os.getpid(), number)
        assert interrupts.received == number
        interrupts.leave()
    assert capsys.readouterr().err == "Go on by this.\n"
    if error is SystemExit:
        assert raised.value.code == 143


def test_a_second_ctrl_c_acts_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts(""):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_process_is_left_as_it_was():
    before = [signal.getsignal(number) for number in SIGNALS]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    old = signal.set_wakeup_fd(writer)
    try:
        with Interrupts(""):
            assert [signal.getsignal(number) for number in SIGNALS] != before
            os.kill(os.getpid(), signal.SIGINT)
            assert os.read(reader, 1) == bytes([signal.SIGINT])  # who listened before still hears
        assert signal.set_wakeup_fd(writer) == writer
    finally:
        signal.set_wakeup_fd(old)
        os.close(reader)
        os.close(writer)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def run():
        with Interrupts("") as interrupts:
            found.extend([signal.getsignal(signal.SIGINT), interrupts.received])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before, None]


def test_a_step_that_does_not_end_is_ended():
    program = (
        "import hashlib, os, signal, threading\n"
        "from ml3_tf.outer_loop import _interrupts\n"
        "_interrupts.GRACE = 0.5\n"
        "with _interrupts.Interrupts('Go on by this.'):\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # compiled code, for minutes\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 143
    assert "The step took too long to save it. Go on by this." in ended.stderr
    assert _interrupts.GRACE < 10  # what users are promised
