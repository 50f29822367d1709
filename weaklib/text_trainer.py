"""TRL's SFT trainer, faster on a CPU."""

from trl import SFTTrainer

from weaklib.language_models import token_logps
from weaklib.processes import SharedSteps, through


class TextTrainer(SharedSteps, SFTTrainer):
    """The loss is TRL's: the mean over the tokens of a step that are trained on.

    TRL's head never holds the logits, which a GPU needs; on a CPU its tiles, and what it measures beside the loss, cost more
    than the plain logits of those tokens.
    """

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        collate = self.data_collator
        self.data_collator = lambda rows: collate(self._parts(rows)[self.args.process_index])

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"].roll(-1, dims=1)  # each position's next token; none follows the last
        labels[:, -1] = -100
        learned = (labels.flatten() != -100).nonzero()[:, 0]
        forward = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        logps = through(model, self.model, token_logps, forward, learned, labels.flatten()[learned])
        if num_items_in_batch is None:
            return -logps.mean()
        # the tokens are those of all processes, whose gradients are averaged
        return -logps.sum() / (num_items_in_batch / self.args.world_size)
