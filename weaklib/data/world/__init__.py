"""The controlled world's tasks: ``sample_prompts``, ``write_response``, ``gold_reward`` and an annotator, ``HUMAN``."""

from weaklib.data.world import dialogue, summarisation

WORLDS = {"dialogue": dialogue, "summarisation": summarisation}
