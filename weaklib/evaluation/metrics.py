"""What is measured of policies (gold reward accuracy, gains, differences of arms) and of labels (right, calibrated)."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from weaklib.evaluation.intervals import COLUMNS, LEVEL, Estimate, correct_family, crossed_mean, interval, nested_mean

ANYTHING = (-np.inf, np.inf)


def wins(reward, reference) -> np.ndarray:
    """1 where ``reward`` is higher than ``reference``, 0 where lower, ½ where they tie; missing stays missing."""
    return (np.sign(np.subtract(reward, reference)) + 1) / 2


def without_silent_rewards(results: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """``results`` without the rewards of a ``gold`` that gives all responses the same: no win, gain or tie can be read
    from it, and one half with an interval of no width would look like knowledge. And a sentence for each such gold."""
    rewards, reasons = ["gold_reward", "sft_gold_reward"], []
    for gold, rows in results.groupby("gold"):
        lacking, same = int(rows[rewards].isna().to_numpy().sum()), len(np.unique(rows[rewards])) == 1
        if same or lacking:
            results = results.assign(**{name: results[name].mask(results["gold"] == gold) for name in rewards})
            cause = f"no reward to {lacking} of" if lacking else "the same reward to all"
            reasons.append(f"Missing: {gold} gives {cause} {2 * len(rows)} responses.")
    return results, reasons


def mean_of(results: pd.DataFrame, by: Sequence[str], metric: str) -> pd.DataFrame:
    """The mean of a metric over seeds and test prompts, a row for each group of ``by``, the columns of a setting.
    ``gra``: gold reward accuracy ([B]), the share of prompts where the policy's response beats its SFT start's;
    ``gra_at_equal_length``: were both of one length; ``gain`` in gold reward over the start, [A]'s untrained policy;
    or a column. Raises ValueError where a value is missing, or the seeds of an arm were tested on different prompts.
    """

    def mean(rows: pd.DataFrame) -> Estimate:
        rows = without_length(rows) if metric == "gra_at_equal_length" else rows
        return crossed_mean(_by_seed_and_prompt(rows), (0, 1) if metric.startswith("gra") else ANYTHING)

    return summarise(_with_score(results, metric), by, mean)


def paired_scores(results: pd.DataFrame, by: Sequence[str], baseline: str | dict, metric: str = "gra") -> pd.DataFrame:
    """The rows that are no baseline, with ``score``: theirs minus the baseline's (arguments of :func:`difference`)."""
    fixed = {"arm": baseline} if isinstance(baseline, str) else baseline
    same = [column for column in by if column not in ("top_percent", *fixed)] + ["seed", "prompt"]
    scored = _with_score(results, "gold_reward" if metric == "win_rate" else metric)
    is_base = np.logical_and.reduce([scored[column] == wanted for column, wanted in fixed.items()])
    base = scored.loc[is_base, [*same, "score"]].rename(columns={"score": "base"})
    both = scored[~is_base].merge(base, on=same, how="left", validate="many_to_one")
    compare = wins if metric == "win_rate" else np.subtract
    return both.assign(score=compare(both["score"], both.pop("base")))


def difference(results, by: Sequence[str], baseline: str | dict, metric: str = "gra", over=()) -> pd.DataFrame:
    """A metric of each arm and setting minus that of a baseline on the same seeds and prompts, as :func:`mean_of`.
    ``baseline``: an arm, compared within each setting, or ``{column: value}``, compared with one value of those columns
    within each setting of the others. ``metric``: of :func:`mean_of`, or ``win_rate`` ([B] Fig. 5), the share of
    prompts with more gold reward. ``over``: columns of settings that are averaged, seed by seed and prompt by prompt.
    """
    scored = paired_scores(results, [*by, *over], baseline, metric)
    if over:
        scored = scored.groupby([*by, "seed", "prompt"], dropna=False, sort=False, as_index=False)["score"].mean()
    bounds = {"gra": (-1, 1), "win_rate": (0, 1)}.get(metric, ANYTHING)
    return summarise(scored, by, lambda rows: crossed_mean(_by_seed_and_prompt(rows), bounds))


def contrasts(results: pd.DataFrame, by: Sequence[str], baseline: str | dict, over: Sequence[str] = ()) -> pd.DataFrame:
    """Differences in GRA and gold reward for the ledger of claims: with ``metric``, ``baseline`` (``arm=human``, say),
    ``mean`` in the columns of ``over``, and p values corrected (Holm) for the number of differences in a metric.
    """
    fixed = {"arm": baseline} if isinstance(baseline, str) else baseline
    name = ", ".join(f"{column}={value}" for column, value in fixed.items())
    both = ((metric, difference(results, by, baseline, metric, over)) for metric in ("gra", "gold_reward"))
    found = pd.concat([correct_family(rows).assign(metric=metric) for metric, rows in both], ignore_index=True)
    return found.assign(baseline=name, **dict.fromkeys(over, "mean"))


def rank_agreement(results: pd.DataFrame, arms: list[str], one: str, other: str, draws: int = 2000) -> Estimate:
    """Spearman's rank correlation of the ``arms``' GRA under two gold rewards, for one pair of models.
    The interval is a percentile bootstrap over seeds and prompts, the same draws for all arms and both rewards. With
    few arms and seeds it is coarse: a correlation of some ten arms has few values to take.
    """
    groups = dict(list(_with_score(results, "gra").groupby(["gold", "arm"])))
    both = [np.stack([_by_seed_and_prompt(groups[gold, arm]) for arm in arms]) for gold in (one, other)]
    rng, (_, seeds, prompts) = np.random.default_rng(0), both[0].shape

    def correlation(of_seeds: np.ndarray, of_prompts: np.ndarray) -> float:
        return spearmanr(*(np.einsum("asp,s,p->a", scores, of_seeds, of_prompts) for scores in both)).statistic

    weights = ([rng.multinomial(size, [1 / size] * size) for size in (seeds, prompts)] for _ in range(draws))
    correlations = [correlation(*drawn) for drawn in weights]
    low, high = (float(np.nanquantile(correlations, (1 + side * LEVEL) / 2)) for side in (-1, 1))
    whole = correlation(np.ones(seeds), np.ones(prompts))
    return Estimate(whole, low, high, seeds, prompts, float(np.nanstd(correlations)), np.nan)


def without_length(rows: pd.DataFrame) -> pd.DataFrame:
    """One arm's rows with the ``score`` less what the difference in length explains of it.
    As in length-controlled AlpacaEval (Dubois et al. 2024) length enters as tanh of the standardised difference
    in words and is set to 0; the model is linear, so that each prompt keeps a score and the intervals are those of GRA.
    """
    difference = (rows["words"] - rows["sft_words"]).to_numpy(float)
    if not difference.any():
        return rows
    length = np.tanh(difference / difference.std())
    slope = np.polyfit(length, rows["score"], deg=1)[0]
    return rows.assign(score=rows["score"] - slope * length)


def _with_score(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    if metric in ("gra", "gra_at_equal_length", "gain"):
        compare = np.subtract if metric == "gain" else wins
        return results.assign(score=compare(results["gold_reward"], results["sft_gold_reward"]))
    return results.assign(score=results[metric])


def _by_seed_and_prompt(rows: pd.DataFrame) -> np.ndarray:
    table = rows.pivot(index="seed", columns="prompt", values="score").to_numpy()
    if np.isnan(table).any() and rows["score"].notna().any():
        raise ValueError("the seeds of an arm were tested on different prompts")
    return table


def summarise(rows: pd.DataFrame, by: Sequence[str], estimate: Callable) -> pd.DataFrame:
    """A row for each group of ``by``: the ``estimate`` of its rows, which have a ``score``; no row where it is None,
    and a missing estimate where no score of the group is known. Raises ValueError where some are missing.
    """

    def known(group: pd.DataFrame) -> Estimate | None:
        missing = group["score"].isna().sum()
        if 0 < missing < len(group):
            raise ValueError(f"a score is missing in {missing} of {len(group)} rows")
        sizes = group["seed"].nunique(), len(group) // max(group["seed"].nunique(), 1)
        return Estimate._make([np.nan] * 3 + [*sizes] + [np.nan] * 2) if missing else estimate(group)

    found = [(name, known(group)) for name, group in rows.groupby(list(by), dropna=False, sort=False)]
    return pd.DataFrame([(*name, *each) for name, each in found if each], columns=[*by, *COLUMNS])


def label_means(labels, by: Sequence[str], column: str, minus="", where="", largest=1.0, fewest=2) -> pd.DataFrame:
    """The mean of ``column`` (0 to ``largest``) over pairs, which differ by seed: how often labels are right, say.
    With ``minus``, the mean difference to that column of the same pairs; with ``where``, the mean where that column is
    true less that where it is not. A row for each group of ``by``; groups with less than ``fewest`` pairs in some seed
    are left out, and pairs without a value. Raises ValueError where ``minus`` has none.
    """
    told, seeds = labels.dropna(subset=[column]), labels["seed"].nunique()
    told = told.assign(score=told[column].astype(float) - (told[minus].astype(float) if minus else 0.0))
    lowest = -largest if minus or where else 0

    def mean(group: pd.DataFrame) -> Estimate | None:
        parts = [part["score"].to_numpy() for _, part in group.groupby(["seed", where] if where else "seed")]
        if len(parts) < (2 * seeds if where else seeds) or min(map(len, parts)) < fewest:
            return None
        return nested_mean(list(map(influence, parts[1::2], parts[::2])) if where else parts, (lowest, largest))

    return summarise(told, by, mean)


def influence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Scores, one a unit: their mean is mean(one) − mean(other), their variance over their number that of this."""
    minus, size = one.mean() - other.mean(), len(one) + len(other)
    centred = (one - one.mean()) / len(one), (other.mean() - other) / len(other)
    return minus + size * np.concatenate(centred)


def labels_against_human(labels: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How much more often weak labels are right than the human's of the same pairs, for the ledger of claims."""
    right = label_means(labels, by, "truth", minus="human_truth")
    return right.assign(metric="labels_right", arm="weak", baseline="arm=human")


def calibration_error(labels: pd.DataFrame, by: Sequence[str], correct: str) -> pd.DataFrame:
    """Expected calibration error of σ(margin) as the probability that a label is right (``correct``), a row a group.
    ECE = Σ_b n_b/n · |share right − mean probability| over ten bins of equal width (Naeini et al. 2015), a seed
    each; the interval is a t interval over seeds, and missing with one seed.
    """

    def error(rows: pd.DataFrame) -> float:
        probability = 1 / (1 + np.exp(-rows["margin"].to_numpy()))
        gap, number = rows["score"].to_numpy(float) - probability, (probability * 10).astype(int)
        return np.abs(np.bincount(np.minimum(number, 9), weights=gap)).sum() / len(rows)

    def mean(rows: pd.DataFrame) -> Estimate:
        errors = np.array([error(group) for _, group in rows.groupby("seed")])
        size = len(errors)
        variance = errors.var(ddof=1) / size if size > 1 else np.nan
        return interval(errors.mean(), variance, size - 1, (size, round(len(rows) / size)), (0, np.inf))

    return summarise(labels.assign(score=labels[correct]), by, mean)


def reliability_curve(labels: pd.DataFrame, by: Sequence[str], correct: str) -> pd.DataFrame:
    """The share of labels that are right by the ``probability`` with which the annotator holds them to be, in bins.
    As :func:`label_means`, with ``bin`` and mean ``probability``; without bins of less than ten labels in some seed.
    """
    known, edges = labels.dropna(subset=["probability"]), [0.5, 0.6, 0.7, 0.8, 0.9, 1]
    known = known.assign(bin=pd.cut(known["probability"], edges, include_lowest=True, labels=False))
    mean = known.groupby([*by, "bin"], as_index=False)["probability"].mean()
    return label_means(known, [*by, "bin"], correct, fewest=10).merge(mean)


def agreement_across_seeds(labels: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How often annotators of two seeds label a pair alike that is unlabeled in both, the mean over all two seeds."""
    rows = []
    for name, group in labels.groupby(by, sort=False):
        table = group.pivot(index="pair", columns="seed", values="chosen")
        both = [table[list(seeds)].dropna() for seeds in itertools.combinations(table.columns, 2)]
        alike = [(pairs.iloc[:, 0] == pairs.iloc[:, 1]).mean() for pairs in both]
        rows.append(dict(zip(by, name)) | {"estimate": np.mean(alike) if alike else np.nan, "n_seeds": table.shape[1]})
    return pd.DataFrame(rows)
