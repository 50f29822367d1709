"""How much a stage reads, in expectation: texts, prompts and pairs, and the tokens of each, from its parameters and those of its inputs.

A number that cannot be known is NaN.
"""

from math import nan

import numpy as np

from weaklib.profile import Profile
from weaklib.sections import DatasetTask
from weaklib.stage import Stage

# Mean tokens of a prompt and of a response with its end, measured with tokenizers of 1,200 tokens made from the worlds' own text.
WORLD_TOKENS = {"dialogue": (23, 25), "summarisation": (44, 14)}
# The share of weak labels with which the human agrees: [A] Sec. 4.
MATCHED = 0.606


class Amounts:
    """Amounts of the stages of ``profile``."""

    def __init__(self, profile: Profile):
        self.expected = profile.task.expected if isinstance(profile.task, DatasetTask) else None

    def sizes(self, stage: Stage) -> dict[str, float]:
        """How many pairs, pairs of the proxy's, demonstrations and texts to pre-train on the stage's task has."""
        p, names = _task(stage), ("pairs", "proxy", "demonstrations", "corpus")
        if p["kind"] == "world":
            return dict(zip(names, (p["pairs"], 0, p["demonstrations"], p["corpus"])))
        if p["kind"] == "file":  # as many as the file has
            return dict.fromkeys(names, nan)
        total = min(self.expected.pairs, p.get("max_pairs") or self.expected.pairs)
        pairs = total * (1 - p["demonstrations_share"] - p["proxy_share"])
        shown = pairs if p["demonstrations"] == "chosen" else total * p["demonstrations_share"]
        return dict(zip(names, (pairs, total * p["proxy_share"], shown, 2 * shown)))

    def prompts(self, responses: Stage) -> float:
        """How many prompts get a response."""
        return _task(responses).get(f"{responses.parameters['part']}_prompts", nan)

    def texts(self, stage: Stage) -> tuple[float, float]:
        """Mean tokens of a prompt and of a response, after the limits of ``stage``."""
        task = _task(stage)
        if task["kind"] == "world":
            prompt, response = WORLD_TOKENS[task["name"]]
        elif task["kind"] == "file":
            return nan, nan
        else:
            prompt, response = self.expected.prompt_tokens, self.expected.response_tokens
        limits = stage.parameters.get("limits") or {}
        return (
            min(prompt, limits.get("max_prompt_tokens", prompt)),
            min(response, limits.get("max_response_tokens", response)),
        )

    def sampled(self, responses: Stage) -> tuple[float, float]:
        """Mean tokens of a prompt, and the most that its response may have."""
        return self.texts(responses)[0], responses.parameters["sampling"]["max_new_tokens"]

    def pairs(self, stage: Stage) -> float:
        """How many pairs a stage labels or learns from."""
        p = stage.parameters
        if stage.name == "policy":  # of those above a threshold, all: how many there are shows when they are labelled
            return np.ceil(self.pairs(stage.inputs["labels"]) * p.get("top_percent", 100) / 100)
        if stage.name == "gold_pairs":
            return p["pairs"]
        if "weak" in stage.inputs:
            return self.pairs(stage.inputs["weak"]) * (MATCHED if p["by"] == "matched" else 1 - MATCHED)
        if stage.inputs["task"].name == "gold_pairs":
            return self.pairs(stage.inputs["task"])
        sizes = self.sizes(stage)
        if p["part"] not in ("labeled", "unlabeled"):
            return sizes["proxy" if p["part"] == "proxy" else "pairs"]
        split = stage.inputs["split"].parameters
        labeled = split["labeled_fraction"]
        return sizes["pairs"] * (labeled if p["part"] == "labeled" else split.get("unlabeled_fraction") or 1 - labeled)


def _task(stage: Stage) -> dict | None:
    """Parameters of the task at the root of ``stage``."""
    if stage.name == "task":
        return stage.parameters
    return next(filter(None, map(_task, stage.inputs.values())), None)
