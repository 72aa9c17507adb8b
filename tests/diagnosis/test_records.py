"""Tests of `ml3_tf.diagnosis._records`: what a diagnosis prints, and its growth."""

import math

import pytest

from ml3_tf import Diagnosis
from ml3_tf.diagnosis import Finding, LayerCheck, VariableCheck

MEASURED = Diagnosis(
    variables=(VariableCheck("dense/kernel", (2, 4), 0.125, math.nan, "not checked"),),
    layers=(LayerCheck("norm", "learner: Norm", 1e-9, 0.25, 0.5, "second derivative is wrong"),),
    by_steps={1: 0.5, 2: 1.0, 5: 2.5, 10: 50.0},
    drift={0: 2.0, 1000: 1.0},
    motion=0.01,
    findings=(Finding("It is wrong.", "Somebody looked.", "Mend it."),),
    notes=("Nothing else.",),
)


def test_it_prints_tables_and_advice():
    lines = str(MEASURED).splitlines()
    assert lines[0].split() == "variable of the meta-loss shape gradient error finite differences".split()
    assert lines[2].split() == "dense/kernel 2 x 4 0.12 - not checked".split()
    assert [line.split() for line in lines if line.startswith("norm ")] == [
        "norm learner: Norm 1e-09 0.25 50% second derivative is wrong".split()
    ]
    assert ["1,000", "1"] in [line.split() for line in lines]
    findings = ["Findings:", "1. It is wrong.", "   Seen: Somebody looked.", "   Do: Mend it."]
    assert lines[-7:] == [*findings, "", "Notes:", "- Nothing else."]
    assert str(Diagnosis()).endswith("Findings: none.")


def test_growth_is_beside_the_number_of_steps():
    assert MEASURED.growth == pytest.approx(10.0)
    assert Diagnosis(by_steps={1: 1e-9, 2: 1.0, 4: 4.0}).growth == pytest.approx(2.0)  # as Adam begins
    assert math.isnan(Diagnosis().growth) and math.isnan(Diagnosis(by_steps={1: 0.0, 2: 0.0}).growth)


def test_it_is_healthy_without_findings():
    assert Diagnosis().is_healthy and not MEASURED.is_healthy
