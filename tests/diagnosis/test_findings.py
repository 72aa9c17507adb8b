"""Tests of `ml3_tf.diagnosis._findings`: each rule, at both sides of its line."""

import dataclasses
import math

import pytest

from ml3_tf import Diagnosis
from ml3_tf.diagnosis import LayerCheck, QueryCheck, VariableCheck
from ml3_tf.diagnosis._findings import find

LAYER = LayerCheck("dense", "learner: Dense", 1e-9, 1e-9, 0.3, "agrees")
VARIABLE = VariableCheck("kernel", (2, 4), 0.1, 1e-9, "agrees")
WELL = Diagnosis(
    variables=(VARIABLE,),
    layers=(LAYER,),
    by_steps={1: 0.1, 2: 0.2, 5: 0.6},
    drift={0: 4.0, 5: 2.0, 15: 1.0, 50: 1.1},
    inner_steps=5,
    motion=0.01,
    sensitivity=0.1,
    query=QueryCheck((4.0, 0.1), (4.0, 0.4), 0.0),
)


def test_all_is_well():
    assert find(WELL) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": (LAYER._replace(verdict="second derivative is wrong", second_error=0.25),)}, "second derivative"),
        ({"layers": (LAYER._replace(verdict="missing: no gradient defined"),)}, "missing: no gradient defined"),
        ({"layers": (LAYER._replace(share_off=0.95),)}, "dead"),
        ({"by_steps": {1: 0.1, 5: math.nan}}, "not finite"),
        ({"by_steps": {1: 0.0, 5: 0.0}}, "no meta-gradient"),
        ({"by_steps": {1: 0.1, 2: 0.2, 5: 51.0}}, "explodes"),
        ({"variables": (VARIABLE._replace(verdict="cut", error=1.0),)}, "cut off for kernel"),
        ({"variables": (VARIABLE._replace(verdict="differs", error=0.02),)}, "wrong for kernel"),
        ({"motion": 1e-9, "sensitivity": 1e-8}, "hardly move"),
        ({"constant_targets": ("query",)}, "targets of the query are constant"),
        ({"query": QueryCheck((4.0, 0.1), (4.0, 3.9), 0.0)}, "query does not belong"),
        ({"query": QueryCheck((4.0, 0.1), (4.0, 2.0), 0.75)}, "query does not belong"),
        ({"drift": {0: 4.0, 5: 2.0, 50: 4.1}}, "drift away"),
        ({"drift": {0: 4.0, 5: 2.0, 50: math.nan}}, "drift away"),
    ],
)
def test_a_fault_is_named(changes, words):
    [finding] = find(dataclasses.replace(WELL, **changes))
    assert words in finding.problem
    assert finding.evidence and finding.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (LAYER._replace(verdict="not checked: it is missing something"),)},
        {"layers": (LAYER._replace(verdict="unsettled"),)},
        {"by_steps": {1: 0.1, 2: 0.2, 5: 49.0}},
        {"variables": (VARIABLE._replace(verdict="no effect", norm=0.0),)},
        {"motion": 0.0, "sensitivity": 0.1},  # a loss of zeros, whose weights learn
        {"motion": 1e-9, "sensitivity": 0.1},
        {"query": None},
        {"query": QueryCheck((4.0, 2.1), (4.0, 4.0), 0.0)},  # nobody fits such a support
        {"drift": {0: 4.0, 5: 4.1, 50: 400.0}},  # a loss that has not learned anything yet
    ],
)
def test_what_is_no_fault_is_not_named(changes):
    assert find(dataclasses.replace(WELL, **changes)) == ()
