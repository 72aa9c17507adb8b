"""Tests of `ml3_tf.commands.printing`: text of the same data that JSON holds."""

import json

from ml3_tf.commands.doctor import Diagnosis, Finding
from ml3_tf.commands.losses import ListedLoss, ShownLoss
from ml3_tf.commands.printing import diagnosis_text, losses_text, shown_text, to_json, verification_text
from ml3_tf.saving import Check, Verification

SUMMARY = {
    "name": "sine",
    "mode": "per_sample",
    "features": {"y_pred": 1},
    "base": None,
    "num_weights": 1801,
    "learned_rate": None,
    "facts": None,
}


def test_json_is_ascii_and_comes_back():
    assert json.loads(to_json({"formula": "e²"})) == {"formula": "e²"} and to_json({"formula": "e²"}).isascii()


def test_a_list_has_a_paragraph_for_each_loss():
    losses = [ListedLoss(name, [1, 2], "A " + "long " * 30 + "purpose.", "per_set", {"y_pred": 10}) for name in "ab"]
    text = losses_text(losses)
    first, second = text.split("\n\n")
    assert first.splitlines()[0] == "a, version 1, 2" and second.splitlines()[-1] == "    per_set: y_pred (10)"
    assert max(map(len, text.splitlines())) <= 100
    assert losses_text([]) == "No learned losses are installed."


def test_a_shown_loss_has_aligned_rows():
    text = shown_text(ShownLoss(SUMMARY, "loss ≈ 0", (), (), 1.0, "", output="loss.png"))
    assert text.splitlines() == [
        "sine",
        "    mode      per_sample",
        "    features  y_pred (1)",
        "    weights   1,801",
        "    formula   loss ≈ 0",
        "    figure    loss.png",
    ]
    assert "figure" not in shown_text(ShownLoss(SUMMARY, "loss ≈ 0", (), (), 1.0, ""))


def test_checks_end_with_the_result():
    passed, failed = Check("one", True), Check("two", False, "because")
    assert verification_text(Verification("here", "abc", (passed,))).splitlines() == [
        "ok      one",
        "here is a whole export. SHA-256 of its manifest, to pin it:",
        "abc",
    ]
    assert verification_text(Verification("here", None, (passed, failed))).splitlines() == [
        "ok      one",
        "FAILED  two",
        "        because",
        "here is refused; later checks were left out.",
    ]


def test_findings_are_aligned_and_carry_their_remedy():
    findings = (
        Finding("Python", "ok", "3.12"),
        Finding("[cli]", "note", "missing", "pip"),
        Finding("x", "failed", "bad"),
    )
    assert diagnosis_text(Diagnosis(findings)).splitlines() == [
        "ok      Python  3.12",
        "note    [cli]   missing. Remedy: pip",
        "FAILED  x       bad",
        "Something that is needed is wrong, see above.",
    ]
    assert diagnosis_text(Diagnosis(findings[:2])).splitlines()[-1] == "All that is needed is there."
