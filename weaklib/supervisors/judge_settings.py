"""What a profile says of its judge."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Positive = Annotated[int, Field(gt=0)]
_FromZero = Annotated[int, Field(ge=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class SimulatedJudge(_Settings):
    """A judge who knows the truth but for ``noise`` (in gold reward) and favours the first position by ``position_bias`` (log-odds)."""

    noise: Annotated[float, Field(gt=0)]
    position_bias: float


class TokenPrice(_Settings):
    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Prices are in USD a million tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class Judge(_Settings):
    """An LLM asked which of two responses is better; without a ``base_url`` it is simulated from the truth."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    model: str | None = None
    form: Literal["pairwise", "rating"]
    structured: bool
    prompts: _Positive
    repeats: _Positive
    examples: _FromZero
    temperature: Annotated[float, Field(ge=0)]
    max_tokens: _Positive
    concurrency: _Positive
    max_retries: _FromZero
    timeout_s: Annotated[float, Field(gt=0)]
    max_requests: _Positive
    max_cost_usd: Annotated[float, Field(gt=0)]
    usd_per_million_tokens: TokenPrice
    simulated: SimulatedJudge

    @model_validator(mode="after")
    def a_server_needs_a_model(self):
        if self.base_url is not None and self.model is None:
            raise ValueError("judge.base_url needs judge.model, the model's name on that server")
        return self
