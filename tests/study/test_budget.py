"""Budgets: what arms spent by stage, and how a claim's two arms compare."""

import pytest

from jaxagent.study.budget import Spent, budgets, compared, line_of
from jaxagent.study.study import Fit, Measure, Study

STAGES = {
    "pretrain": {"units": ["operations", "tokens"], "operations": 900.0, "tokens": 30, "loss": 2.0},
    "tune/reach/full": {"units": ["operations"], "operations": 60.0, "lanes": 8},
    "tune/push/full": {"units": ["operations"], "operations": 40.0, "lanes": 8},
    "tune/reach/scratch": {"units": ["operations"], "operations": 104.0, "lanes": 8},
    "measure": {"operations": 5.0},
}
SPENT = {
    "full": Spent(("pretrain", "tune/*/full")),
    "tuned": Spent(("tune/*/full",), trials=12),
    "scratch": Spent(("tune/*/scratch",), trials=3),
    "bare": Spent(("tune/*/scratch",)),
    "searching": Spent(("tune/*/scratch",), evaluations=16),
    "untrained": Spent(),
    "snapshot": Spent(("pretrain",), share=0.1),
}


def test_an_arm_spent_what_its_stages_count_a_lane():
    told = budgets(SPENT, STAGES)
    assert told["full"] == {"operations": 1000.0, "tokens": 30, "evaluations": 1}
    assert told["tuned"] == {"operations": 100.0, "evaluations": 1, "settings_tried": 12}
    assert told["untrained"] == {"evaluations": 1}
    assert told["snapshot"] == {"operations": 90.0, "tokens": 3.0, "evaluations": 1}


@pytest.mark.parametrize(
    ("arm", "pattern"), [("full", "tune/*/lora"), ("lora", "tune/*/full"), ("full", "measure")]
)
def test_a_study_is_refused_where_an_arm_or_its_stage_does_not_exist(arm, pattern):
    steps = [Measure("measure", dict), *(Fit(name, dict) for name in STAGES if name != "measure")]
    with pytest.raises(ValueError, match=r"lora|measure"):
        Study({"full": "all"}, ["reach"], steps, dict, [], spent={arm: Spent((pattern,))})


NOT_TOLD = "; settings tried: not counted"


@pytest.mark.parametrize(
    ("arms", "line"),
    [
        (("full", "bare"), f"unmatched: 9.6 x the operations, tokens, of which the other has none{NOT_TOLD}"),
        (("bare", "full"), f"unmatched: 0.1 x the operations, no tokens{NOT_TOLD}"),
        (("tuned", "scratch"), "matched by operations, evaluations; settings tried: 12 and 3"),
        (("searching", "bare"), f"unmatched: 16 x the evaluations{NOT_TOLD}"),
        (("full",), ""),
        (("full", "unknown"), "budgets not told"),
        (("unknown", "forgotten"), "budgets not told"),
        (("T=8", "T=16"), ""),
    ],
)
def test_a_claim_says_whether_its_arms_spent_alike(arms, line):
    trained = (*SPENT, "unknown", "forgotten")
    assert line_of(arms, budgets(SPENT, STAGES), trained) == line


def test_a_tenth_is_no_difference_and_nothing_equals_nothing():
    def said(a, b):
        return compared(a, b).removesuffix(NOT_TOLD)

    assert said({"tokens": 109, "steps": 0}, {"tokens": 100, "steps": 0}) == "matched by tokens, steps"
    for a, b in ((111, 100), (100, 111)):
        assert said({"tokens": a}, {"tokens": b}).startswith("unmatched")
    assert said({"tokens": 1}, {}) == "unmatched: tokens, of which the other has none"
