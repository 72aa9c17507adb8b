"""The torques of an arm of two links in a vertical plane: two models of a seed, one for each joint.

The arm is that of `ml3_tf.envs.reacher`, but it carries its own weight. A model sees angles, velocities and
accelerations of both joints, along motions that are sums of sines, and is scored on other motions::

    tau = M(q) q'' + c(q, q') + g(q)

Shape letters: T times, J joints. Units: rad, s, kg, m, N m.
"""

import keras
import numpy as np

from ml3_tf.bench.task import Problems, Task, stack_problems

LENGTHS = (0.1, 0.11)  # uniform rods
MASS = 1.0  # of each
ARMATURE = 0.004  # inertia of each motor
GRAVITY = 9.81
FREQUENCIES = (0.2, 1.5)  # Hz
AMPLITUDE = 0.8  # rad, the largest of each of three sines
DURATION, NUM_TIMES = 5.0, 100
NUM_TRAIN, NUM_TEST = 4, 10  # motions


def inverse_dynamics(angle: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Returns the torques of motions, all `[..., J]`; an angle of zero hangs down.

    >>> inverse_dynamics(np.zeros(2), np.zeros(2), np.zeros(2)).tolist()
    [0.0, 0.0]
    """
    upper, lower = LENGTHS
    shoulder, elbow = angle[..., 0], angle[..., 1]
    coupling = MASS * upper * lower / 2  # m l_1 l_2 / 2, for the rod's center of mass
    m_22 = MASS * lower**2 / 3
    m_12 = m_22 + coupling * np.cos(elbow)
    m_11 = MASS * (upper**2 / 3 + upper**2) + m_22 + 2 * coupling * np.cos(elbow)
    inertia = np.stack([m_11 + ARMATURE, m_12, m_12, np.full_like(m_12, m_22 + ARMATURE)], -1)
    inertia = inertia.reshape(*inertia.shape[:-1], 2, 2)
    first, second = velocity[..., 0], velocity[..., 1]
    bend = coupling * np.sin(elbow)
    coriolis = np.stack([-bend * second * (2 * first + second), bend * first**2], -1)
    of_lower = MASS * GRAVITY * lower / 2 * np.sin(shoulder + elbow)
    gravity = np.stack([MASS * GRAVITY * 1.5 * upper * np.sin(shoulder) + of_lower, of_lower], -1)
    return np.einsum("...ij,...j->...i", inertia, acceleration) + coriolis + gravity


def draw_motion(generator: np.random.Generator) -> list[np.ndarray]:
    """Draws angle, velocity and acceleration of a motion, each `[T, J]`."""
    times = np.linspace(0, DURATION, NUM_TIMES)[:, np.newaxis, np.newaxis]
    amplitude = generator.uniform(0, AMPLITUDE, (3, 2))
    omega = 2 * np.pi * generator.uniform(*FREQUENCIES, (3, 2))
    phase = omega * times + generator.uniform(0, 2 * np.pi, (3, 2))
    sines = amplitude * np.sin(phase), amplitude * omega * np.cos(phase), -amplitude * omega**2 * np.sin(phase)
    return [values.sum(axis=1) for values in sines]


def draw_torques(seed: int) -> Problems:
    """Draws four motions to train on and ten that score; all is standardized by the former."""
    generator = np.random.default_rng([seed, 2])
    motions = [draw_motion(generator) for _ in range(NUM_TRAIN + NUM_TEST)]
    angle, velocity, acceleration = (np.concatenate(values) for values in zip(*motions, strict=True))
    x = np.concatenate([np.sin(angle), np.cos(angle), velocity, acceleration], axis=1)
    values = np.concatenate([x, inverse_dynamics(angle, velocity, acceleration)], axis=1)
    train, test = values[: NUM_TRAIN * NUM_TIMES], values[NUM_TRAIN * NUM_TIMES :]
    train, test = ((part - train.mean(axis=0)) / train.std(axis=0) for part in (train, test))
    joints = (8, 9)  # columns
    return stack_problems(*([(part[:, :8], part[:, joint : joint + 1]) for joint in joints] for part in (train, test)))


def build_model() -> keras.Model:
    """Returns a network with two hidden layers of 64 units."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(64, "tanh"),
            layers.Dense(64, "tanh"),
            layers.Dense(1, name="output"),
        ]
    )


TORQUES = Task(("torques",), "regression", build_model, draw_torques, num_steps=300, batch_size=50)
