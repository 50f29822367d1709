"""The controlled world: tasks whose truth is known.

A world is a module with ``sample_prompts``, ``write_response`` (by assistants of varying care, from a small grammar of
readable English), ``gold_reward`` (a program that reads an answer's text, whoever wrote it) and ``HUMAN`` (an annotator
with noise, a taste for length and lapses). Every knob stands in :mod:`weaklib.data.world.knobs` with its reason and source.
"""

from weaklib.data.world import dialogue, summarisation

WORLDS = {"dialogue": dialogue, "summarisation": summarisation}
