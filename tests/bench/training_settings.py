"""The sweep that chose the sandbox's policy settings: GRA of the ``human`` arm on *validation* prompts.

No other arm and no test prompt is looked at. Run by ``make settings``; writes ``params/sandbox-settings.csv``.
"""

import itertools

import pandas as pd

from weaklib.arms import graph, running
from weaklib.arms.folders import PARAMS, store_folder
from weaklib.arms.stage import Store
from weaklib.evaluation.metrics import mean_of
from weaklib.study.parameters import load_profile

LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
BETAS = (0.1, 0.5, 1.0)
SEEDS = (0, 1)


def main() -> None:
    store, stages = Store(store_folder()), {}
    for rate, beta in itertools.product(LEARNING_RATES, BETAS):
        p = load_profile("sandbox", {"learning_rate": rate, "beta": beta})
        for (weak, strong), seed in itertools.product(p.models.pairs, SEEDS):
            start = graph.sft(p, strong, seed)
            policy = graph.policy(p, graph.ARMS["human"], weak, strong, seed)
            setting = {"learning_rate": rate, "beta": beta, "strong": strong, "seed": seed}
            stages[tuple(setting.items())] = [graph.rewards(p, model, seed, "validation") for model in (policy, start)]
    running.run([stage for both in stages.values() for stage in both], store)

    tables = []
    for setting, both in stages.items():
        policy, start = (pd.read_parquet(store.folder(stage) / "rewards.parquet").set_index("prompt") for stage in both)
        table = pd.DataFrame({"gold_reward": policy["gold_reward"], "sft_gold_reward": start["gold_reward"]})
        tables.append(table.reset_index().assign(**dict(setting)))
    results = mean_of(pd.concat(tables), ["learning_rate", "beta", "strong"], "gra")
    results.to_csv(PARAMS / "sandbox-settings.csv", index=False, float_format="%.6g")
    print(results.to_string())


if __name__ == "__main__":
    main()
