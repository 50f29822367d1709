"""TRL's DPOTrainer with a weight for each pair and reference log-probabilities that are already known."""

import torch
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from weaklib.language_models import response_logps
from weaklib.losses import preference_loss


class WeightedCollator(DataCollatorForPreference):
    """TRL's batch and the pairs' weights, shape (B,)."""

    def torch_call(self, examples):
        return super().torch_call(examples) | {"weight": torch.tensor([example["weight"] for example in examples])}


class WeightedDPOTrainer(DPOTrainer):
    """Minimises the mean over pairs of weight · loss: CW-PO ([B]) when the weight is the confidence.

    The training set has columns ``prompt_ids, chosen_ids, rejected_ids, ref_chosen_logps, ref_rejected_logps,
    weight``. With all weights 1 the loss and its gradient are those of TRL's own trainer.
    """

    def __init__(self, model, args: DPOConfig, *, objective: str, train_dataset, processing_class):
        self.objective = objective
        # TRL then expects references with the data, and keeps no second model.
        args.precompute_ref_log_probs = True
        super().__init__(
            model,
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            data_collator=WeightedCollator(pad_token_id=processing_class.pad_token_id),
        )

    def _prepare_dataset(self, dataset, *_):
        return dataset  # tokenised already

    def _precompute_ref_logps(self, dataset, *_):
        return dataset  # computed already, by the reference stage

    def _compute_loss(self, model, inputs, return_outputs):
        logps_chosen, logps_rejected = response_logps(model, inputs).chunk(2)
        lengths_chosen, lengths_rejected = inputs["completion_mask"].sum(dim=1).chunk(2)
        losses = preference_loss(
            logps_chosen,
            logps_rejected,
            inputs["ref_chosen_logps"],
            inputs["ref_rejected_logps"],
            objective=self.objective,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            chosen_lengths=lengths_chosen,
            rejected_lengths=lengths_rejected,
        )
        margins = (
            self.beta
            * (logps_chosen - inputs["ref_chosen_logps"] - logps_rejected + inputs["ref_rejected_logps"]).detach()
        )
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["rewards/margins"].append(margins.mean().item())
        metrics["rewards/accuracies"].append((margins > 0).float().mean().item())
        loss = (inputs["weight"] * losses).mean()
        return (loss, None) if return_outputs else loss
