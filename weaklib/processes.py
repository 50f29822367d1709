"""A training step that several processes share: each takes its part of the rows, and their gradients are averaged."""

from collections.abc import Callable

import torch


class SharedSteps:
    """For trainers: ``per_device_train_batch_size`` is a whole step, of which every process reads all rows and keeps its own.

    So a step has the rows that it has in one process, the last one, which is not full, too.
    """

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        if self.args.world_size > 1:  # accelerate would deal out whole steps, and fill up the last from the first
            sampler = loader.batch_sampler
            sampler.num_processes, sampler.process_index, sampler.even_batches = 1, 0, False
        return loader

    def _parts(self, rows: list) -> list[list]:
        """The rows of each process; where there are fewer rows than processes, the first one stands in."""
        return [rows[process :: self.args.world_size] or rows[:1] for process in range(self.args.world_size)]


def through(wrapped: torch.nn.Module, model: torch.nn.Module, function: Callable, *arguments):
    """``function(model, *arguments)`` in a forward of ``wrapped``, DDP's or FSDP's wrapper of ``model``.

    Only there do these wrappers gather weights and watch for gradients. Without a wrapper it is a plain call.
    """
    if wrapped is model:
        return function(model, *arguments)
    forward = model.forward

    def redirected(*given):
        model.forward = forward
        return function(model, *given)

    model.forward = redirected
    return wrapped(*arguments)
