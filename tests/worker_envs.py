"""Environments for tests of worker processes, which import this file: so it must not import TensorFlow."""

import os
import signal
import time

import gymnasium
import numpy as np


class Misshapen(Exception):
    """An error that is pickled, but not built again from what was pickled."""

    def __init__(self, joint, limit):
        super().__init__(f"joint {joint} is beyond {limit}")


def fail(fault):
    class Local(Exception):
        """An error that is not pickled."""

    if fault == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "leaves":
        os._exit(3)
    elif fault == "raises":
        raise RuntimeError("the motor is on fire")
    elif fault == "diverges":
        raise FloatingPointError("a joint ran away")
    elif fault == "local":
        raise Local("the motor is on fire")
    elif fault == "misshapen":
        raise Misshapen(2, 0.5)


class Faulty(gymnasium.Env):
    """Counts its steps; in step `at`, or in `reset` if that is 0, it does what its fault is."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, fault=None, at=2):
        self.fault, self.at = fault, at

    @property
    def task(self):
        return {}

    @task.setter
    def task(self, value):
        if self.fault == "task":
            raise ValueError("the goal is out of reach")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.at == 0:
            fail(self.fault)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.at:
            fail(self.fault)
        return np.full(2, 0.1 * self.steps, np.float32), 1.0, False, False, {}

    def close(self):
        if self.fault == "stays":
            time.sleep(60)


class PendulumTask(gymnasium.Wrapper):
    """Starts an episode with the angle (rad), the velocity (rad/s) and the gravity (m/s^2) of its task."""

    task = {"state": np.array([0.0, 0.0, 10.0])}

    def reset(self, *, seed=None, options=None):
        _, info = self.env.reset(seed=seed, options=options)
        angle, velocity, self.unwrapped.g = self.task["state"]
        self.unwrapped.state = np.array([angle, velocity])
        return np.array([np.cos(angle), np.sin(angle), velocity], np.float32), info


def make_pendulum():
    return PendulumTask(gymnasium.make("Pendulum-v1", max_episode_steps=8))
