"""The table of arms: ways to train a policy. A new arm is a line here, and perhaps one in weaklib.figures.draw."""

from collections import namedtuple

Arm = namedtuple("Arm", "name labels part weighting")  # who labels which pairs; weightings: training.policy.weigh
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
