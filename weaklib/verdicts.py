"""The judge's verdicts on a study's arms: win rates, and how far the judge itself can be trusted."""

import dataclasses
import itertools

import numpy as np
import pandas as pd

from weaklib import judge
from weaklib.statistics import crossed_mean
from weaklib.study import Study
from weaklib.worlds import WORLDS

PAIR = ["annotator.kind", "arm", "weak", "strong", "seed", "prompt"]


def verdicts_on(study: Study, *names: str, baseline: str, overrides: dict | None = None) -> pd.DataFrame:
    """The judge's verdicts on the responses of the named arms against those of ``baseline`` to the same prompts and seeds.

    Each pair is asked in both orders and ``judge.repeats`` times, of the first ``judge.prompts`` test prompts. Two responses that are
    the same text are a tie that nobody is asked about.

    Returns:
        a row a question: ``annotator.kind, arm, weak, strong, seed, prompt, arm_first, repeat, asked, verdict`` (``first``, ``second``, ``tie``, missing
        where the replies could not be read), ``requests, input_tokens, output_tokens``, and ``truth``, which of the two has
        the higher gold reward (missing where it is unknown).
    """
    p = study.profile_with(overrides)
    runs = {(run.weak, run.strong, run.seed, run.arm): run for run in study.arms(*names, baseline, overrides=overrides)}
    if not study.compute([run.rewards for run in runs.values()]):
        return pd.DataFrame()
    rows = []
    for weak, strong, seed, arm in runs:
        if arm == baseline:
            continue
        ours, theirs = (
            study.read(runs[weak, strong, seed, which].rewards, "rewards").head(p.judge.prompts)
            for which in (arm, baseline)
        )
        setting = {"annotator.kind": p.annotator.kind, "arm": arm, "weak": weak, "strong": strong, "seed": seed}
        for one, other in zip(ours.itertuples(), theirs.itertuples(), strict=True):
            truth = np.sign(one.gold_reward - other.gold_reward) if study.own_gold == "truth" else np.nan
            for arm_first, repeat in itertools.product((True, False), range(p.judge.repeats)):
                shown = (one.response, other.response) if arm_first else (other.response, one.response)
                question = judge.Question(one.prompt, *shown, repeat)
                rows.append(
                    setting | vars(question) | {"arm_first": arm_first, "truth": truth if arm_first else -truth}
                )
    frame = pd.DataFrame(rows)
    asked = frame["first"] != frame["second"]
    questions = [
        judge.Question(**row) for row in frame.loc[asked, ["prompt", "first", "second", "repeat"]].to_dict("records")
    ]
    records = pd.DataFrame(_ask(study, questions), index=frame.index[asked])
    same = {"verdict": "tie", "requests": 0, "input_tokens": 0, "output_tokens": 0}
    records = pd.concat([records, pd.DataFrame([same] * int((~asked).sum()), index=frame.index[~asked])])
    names_of_truth = {1.0: "first", -1.0: "second", 0.0: "tie"}
    return frame.join(records[list(same)]).assign(truth=frame["truth"].map(names_of_truth), asked=asked)


def win_rates(verdicts: pd.DataFrame, by: list[str], asked: str) -> pd.DataFrame:
    """The share of prompts on which the arm's response is judged better, a tie counted half; one row for each group of ``by``.

    Args:
        verdicts: :func:`verdicts_on`; the first repeat counts.
        asked: ``both orders``: a verdict that turns over with the order is a tie; ``arm first`` or ``arm second``: as if the pair had been
            asked in that order only.

    Returns:
        ``estimate, ci_low, ci_high, n_seeds, n_prompts, …``; prompts without a readable verdict in some seed are left out of all seeds,
        and ``left_out`` counts them.
    """
    scores = _scores(verdicts[verdicts["repeat"] == 0])
    pairs = scores.pivot(index=PAIR, columns="arm_first", values="score")
    if asked == "both orders":
        agree = pairs[True] == pairs[False]
        score = pairs[True].where(agree, 0.5).mask(pairs.isna().any(axis=1))
    else:
        score = pairs[{"arm first": True, "arm second": False}[asked]]
    rows = score.rename("score").reset_index()
    found = []
    for name, group in rows.groupby(by, sort=False):
        table = group.pivot(index="seed", columns="prompt", values="score")
        judged = table.dropna(axis="columns")
        if judged.shape[1] < 2:
            empty = dict.fromkeys(("estimate", "ci_low", "ci_high"), np.nan) | {
                "n_seeds": len(table),
                "n_prompts": judged.shape[1],
            }
            found.append(dict(zip(by, name)) | empty | {"left_out": table.shape[1] - judged.shape[1]})
            continue
        estimate = dataclasses.asdict(crossed_mean(judged.to_numpy(), (0, 1)))
        found.append(dict(zip(by, name)) | estimate | {"left_out": table.shape[1] - judged.shape[1]})
    return pd.DataFrame(found)


def reliability(verdicts: pd.DataFrame) -> dict[str, float]:
    """How far the judge can be trusted, as shares of what it was ``asked``; missing where there is nothing to take a share of.

    ``unreadable``: questions without a verdict after two replies. ``first_position``: of those that name one, verdicts for the first; a judge
    without a position bias has one half. ``flips``: pairs whose verdict turns over with the order. ``consistency``: pairs of
    repeats of one question that agree ([A] Sec. 4). ``right``: verdicts that name the response with the higher gold reward.
    """
    verdicts = verdicts[verdicts["asked"]]
    read = verdicts.dropna(subset=["verdict"])
    named = read[read["verdict"] != "tie"]
    scores = _scores(verdicts[verdicts["repeat"] == 0]).pivot(index=PAIR, columns="arm_first", values="score").dropna()
    repeats = read.pivot(index=[*PAIR, "arm_first"], columns="repeat", values="verdict")
    later = [repeats[column] == repeats[0] for column in repeats.columns[1:]]
    again = (
        pd.concat(later)[pd.concat([repeats[[0, c]].notna().all(axis=1) for c in repeats.columns[1:]])] if later else []
    )
    told = named[named["truth"].isin(["first", "second"])]
    return {
        "unreadable": verdicts["verdict"].isna().mean(),
        "first_position": (named["verdict"] == "first").mean() if len(named) else np.nan,
        "flips": (scores[True] != scores[False]).mean() if len(scores) else np.nan,
        "consistency": again.mean() if len(again) else np.nan,
        "right": (told["verdict"] == told["truth"]).mean() if len(told) else np.nan,
    }


def _scores(verdicts: pd.DataFrame) -> pd.DataFrame:
    """1 where the verdict is for the arm, 0 where it is for the baseline, ½ for a tie; missing stays missing."""
    for_first = verdicts["verdict"].map({"first": 1.0, "second": 0.0, "tie": 0.5})
    return verdicts.assign(score=for_first.where(verdicts["arm_first"], 1 - for_first))


def _ask(study: Study, questions: list[judge.Question]) -> list[dict]:
    settings = study.profile.judge
    if settings.base_url is not None:
        return judge.ask(settings, questions, study.store.root / "verdicts")
    world = WORLDS[study.profile.task.name]
    return judge.simulate(settings, questions, world.gold_reward, study.profile.seeds[0])
