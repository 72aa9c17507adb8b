"""The tuning of PPO in the recipes that learn from experience alone."""

import ant_model_free
import numpy as np
import pytest

from ml3_tf.rl import Adaptation
from parts.ant_model_free import task
from parts.model_free import tuning
from parts.model_free.settings import TuningSettings

SETTINGS = ant_model_free.Settings(num_tuning_tasks=1, ppo_rates=(1e-3, 3e-3), ppo_episodes=(8, 20), ppo_samples=1100)


def curve(rise):
    """A curve that jumps to its end after so many updates of 100 samples."""
    return {"samples": (100 * np.arange(12)).tolist(), "returns": np.where(np.arange(12) < rise, -10.0, -1.0).tolist()}


def tune(rises, settings, folder):
    """Tunes with curves that rise when `rises(rate, episodes)` says; returns what was found, and the runs."""
    runs = []

    def run_tuning(name, settings, output_dir, verbose):
        _, rate, episodes = name.split("_")
        runs.append((float(rate), int(episodes)))
        return curve(rises(*runs[-1]))

    return tuning.tune_ppo(run_tuning, settings.restricted_to(TuningSettings), folder, jobs=1), runs


@pytest.mark.parametrize(("episodes", "paper_ppo"), [((8, 20), (1e-3, 20)), ((8,), (3e-3, 20))])
def test_it_chooses_freely_and_with_the_episodes_of_the_paper(episodes, paper_ppo):
    """8 episodes learn fastest at 3e-3, 20 at 1e-3."""
    rises = {(1e-3, 8): 3, (3e-3, 8): 1, (1e-3, 20): 2, (3e-3, 20): 4}
    curves = {setting: tuple(curve(rise).values()) for setting, rise in rises.items() if setting[1] in episodes}
    found = tuning.choose(curves)
    assert (found.ppo, found.paper_ppo) == ((3e-3, 8), paper_ppo)
    assert found.grid["0.003, 8"] == {"samples_to_level": 100, "final_return": -1.0}


def test_a_setting_that_never_gets_there_is_not_chosen():
    never = ([0, 100], [-10.0, -9.0])
    found = tuning.choose({(1e-3, 8): never, (3e-3, 8): ([0, 100], [-10.0, -1.0])})
    assert found.ppo == (3e-3, 8) and found.grid["0.001, 8"]["samples_to_level"] is None


def test_a_grid_grows_until_its_optimum_lies_inside(tmp_path):
    """The best rate is 9e-3, the best number of episodes 4: both beyond the grid."""
    rises = lambda rate, episodes: 1 + abs(round(np.log(rate / 9e-3) / np.log(3))) + abs(episodes - 4) // 2
    found, runs = tune(rises, SETTINGS.replace(ppo_episodes=(8, 16)), tmp_path)
    assert found.ppo == (9e-3, 4)
    assert {rate for rate, _ in runs} == {1e-3, 3e-3, 9e-3, 2.7e-2}
    assert {episodes for _, episodes in runs} == {2, 4, 8, 16}
    assert len(runs) == len(set(runs))  # each setting once


def test_the_rates_grow_for_the_episodes_of_the_paper_too(tmp_path):
    """8 episodes are best at 1e-3, inside; 20 at 1e-4, the lowest rate."""
    rises = lambda rate, episodes: 1 + abs(round(np.log10(rate / (1e-3 if episodes == 8 else 1e-4)))) + (episodes != 8)
    settings = SETTINGS.replace(ppo_rates=(1e-4, 1e-3, 1e-2), ppo_episodes=(4, 8, 20))
    found, runs = tune(rises, settings, tmp_path)
    assert (found.ppo, found.paper_ppo) == ((1e-3, 8), (1e-4, 20))
    assert min(rate for rate, _ in runs) == 1e-5


def test_a_single_value_stands_for_itself_and_one_episode_is_the_least(tmp_path):
    found, runs = tune(
        lambda rate, episodes: episodes, SETTINGS.replace(ppo_rates=(1e-3,), ppo_episodes=(1, 2)), tmp_path
    )
    assert found.ppo == (1e-3, 1) and runs == [(1e-3, 1), (1e-3, 2)]


def test_an_interrupted_tuning_runs_what_is_left(tmp_path):
    settings = SETTINGS.replace(ppo_rates=(1e-3, 2e-3, 4e-3), ppo_episodes=(8,))

    def interrupted(rate, episodes):
        if rate == 4e-3:
            raise KeyboardInterrupt
        return 1 if rate == 2e-3 else 3

    with pytest.raises(KeyboardInterrupt):
        tune(interrupted, settings, tmp_path)
    found, runs = tune(lambda rate, episodes: 3, settings, tmp_path)
    assert runs == [(4e-3, 8)] and found.ppo == (2e-3, 8)


def test_another_first_grid_uses_what_is_kept(tmp_path):
    settings = SETTINGS.replace(ppo_rates=(1e-3, 2e-3, 4e-3), ppo_episodes=(8,))
    rises = lambda rate, episodes: 1 if rate == 2e-3 else 3
    tune(rises, settings, tmp_path)
    found, runs = tune(rises, settings.replace(ppo_rates=(5e-4, 1e-3, 2e-3, 4e-3), paper_ppo=(1e-3, 20)), tmp_path)
    assert runs == [(5e-4, 8)] and found.ppo == (2e-3, 8)
    with pytest.raises(ValueError, match="ppo_samples differ"):  # but no other experience
        tune(rises, settings.replace(ppo_samples=2200), tmp_path)


def test_one_setting_is_ppo_with_its_rate_and_episodes(monkeypatch):
    received = {}

    def train(experiment, settings, tasks, *, seed, rate, episodes, samples):
        received.update(tasks=len(tasks["goal"]), rate=rate, episodes=episodes, samples=samples)
        returns = np.zeros((2, 1))
        return Adaptation(returns, returns, 100 * np.arange(2)[:, np.newaxis], None)

    monkeypatch.setattr(tuning, "train_by_ppo", train)
    assert tuning.run_setting(task.EXPERIMENT, SETTINGS, "ppo_0.003_40") == {"samples": [0, 100], "returns": [0.0, 0.0]}
    assert received == {"tasks": 1, "rate": 3e-3, "episodes": 40, "samples": 1100}
