"""The files that start a program on several hosts: what they give each host is what `join_hosts` reads.

Slurm and Kubernetes are not here: their part is played by programs that do what their manuals say.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from ml3_tf.hosts import read_cluster

HOSTS = Path(__file__).parents[2] / "examples" / "hosts"
PYTHON = '#!/bin/bash\necho "$@"; echo "$TF_CONFIG"\n'
SCONTROL = '#!/bin/bash\n[ "$1 $2 $3" = "show hostnames node[3,7]" ] && printf "node3\\nnode7\\n"\n'
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=1 ] && shift
for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs a command with programs of ours, and returns its lines."""
    for name, text in {"python": PYTHON, "scontrol": SCONTROL, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(command, **environment):
        paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        finished = subprocess.run(command, env={**paths, **environment}, capture_output=True, text=True, check=True)
        return finished.stdout.splitlines()

    return run


def cluster_of(line, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", line)
    return read_cluster()


def test_slurm_starts_the_example_on_each_host(run, monkeypatch):
    lines = run(["bash", HOSTS / "slurm.sh"], SLURM_JOB_NODELIST="node[3,7]", SLURM_JOB_ID="123456")
    assert lines[0] == lines[2] == "examples/several_hosts.py --folder runs/several_hosts"
    addresses = ["node3:23456", "node7:23456"]
    assert [cluster_of(line, monkeypatch) for line in lines[1::2]] == [(addresses, 0), (addresses, 1)]


def test_kubernetes_starts_the_example_in_each_pod(run, monkeypatch):
    service, job = yaml.safe_load_all((HOSTS / "kubernetes.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name} and service["spec"]["clusterIP"] == "None"
    assert pod["subdomain"] == service["metadata"]["name"] == name
    addresses = [f"{name}-{i}.{name}:12345" for i in range(spec["completions"])]
    for index in range(spec["completions"]):
        arguments, config = run(pod["containers"][0]["command"], JOB_COMPLETION_INDEX=str(index))
        assert arguments == "examples/several_hosts.py --folder /runs/several_hosts"
        assert cluster_of(config, monkeypatch) == (addresses, index)
    assert json.loads(config)["task"]["type"] == "worker"
