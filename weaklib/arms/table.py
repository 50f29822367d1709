"""The table of arms: each labelled way to train a policy. A new arm is a line here, and perhaps one in weaklib.figures.draw."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    name: str
    labels: str  # who labels: human, annotator, oracle, random, or matched and mismatched ([A] Sec. 4)
    part: str  # which pairs: labeled (D_l), unlabeled (D_u), all
    weighting: str  # none, confidence, top, and those of weaklib.training.policy.weigh


_TABLE = """
    human         human       unlabeled  none
    human_all     human       all        none
    labeled_only  human       labeled    none
    weak          annotator   unlabeled  none
    top           annotator   unlabeled  top
    cw            annotator   unlabeled  confidence
    oracle        oracle      unlabeled  none
    random        random      unlabeled  none
    matched       matched     unlabeled  none
    mismatched    mismatched  unlabeled  none
    margin        annotator   unlabeled  margin
    rank          annotator   unlabeled  rank
    above         annotator   unlabeled  above
"""
ARMS = {line.split()[0]: Arm(*line.split()) for line in _TABLE.strip().splitlines()}
