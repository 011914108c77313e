"""What is measured: models by shape with random weights, and queries and demonstrations of chosen lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    XGLMConfig,
)

from lightning_icl.data.queries import Query, collate
from lightning_icl.models.architecture import head_counts
from lightning_icl.models.capture import Capture
from lightning_icl.models.masters import Masters
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.probing.observation import View
from lightning_icl.probing.probe import ICLProbe
from lightning_icl.records import Condition, Demonstrations, QueryBatch

BOS, SEP = 0, 2


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model's shape, and how much is asked of it."""

    size: str
    """Name of the shape: tiny, gpt2, fairseq-1.3b, smollm2 (135M) or gemma3 (270M)."""
    prefix: int
    """Tokens of the demonstrations, BOS left out."""
    shots: int
    queries: int
    tokens: int
    """Tokens of each query."""
    layers: int | None = None
    """Layers, where not the shape's own."""
    width: int | None = None
    """Model width, where not the shape's own."""
    batch_tokens: int = 2048
    """Tokens in a batch of queries."""

    def but(self, **changes: Any) -> "Workload":
        return replace(self, **changes)

    def config(self) -> PretrainedConfig:
        if self.size == "fairseq-1.3b":
            width = self.width or 2048
            return XGLMConfig(
                num_layers=self.layers or 24,
                d_model=width,
                ffn_dim=4 * width,
                attention_heads=width // 64,
                vocab_size=51_200,
            )
        if self.size == "smollm2":
            return LlamaConfig(
                num_hidden_layers=self.layers or 30,
                hidden_size=self.width or 576,
                intermediate_size=1536,
                num_attention_heads=9,
                num_key_value_heads=3,
                vocab_size=49_152,
                max_position_embeddings=8192,
                tie_word_embeddings=True,
            )
        if self.size == "gemma3":
            return Gemma3TextConfig(
                num_hidden_layers=self.layers or 18,
                hidden_size=self.width or 640,
                intermediate_size=2048,
                num_attention_heads=4,
                num_key_value_heads=1,
                head_dim=256,
                vocab_size=262_144,
                sliding_window=512,
            )
        layers, width, words, heads = (2, 64, 500, 4) if self.size == "tiny" else (12, 768, 50_257, 12)
        width = self.width or width
        return GPT2Config(
            n_layer=self.layers or layers,
            n_embd=width,
            n_head=max(1, heads * width // (64 if self.size == "tiny" else 768)),
            vocab_size=words,
            n_positions=2048,
            bos_token_id=BOS,
            eos_token_id=SEP,
        )

    def model(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        torch.manual_seed(0)
        attention = "eager" if self.size == "fairseq-1.3b" else "sdpa"  # XGLM has no other; a visit does not use it
        return AutoModelForCausalLM.from_config(self.config(), dtype=dtype, attn_implementation=attention).eval()

    def demonstrations(self) -> Demonstrations:
        example = self.prefix // self.shots - 1
        drawn = torch.randint(10, 400, (self.shots, example), generator=torch.Generator().manual_seed(1))
        return Demonstrations(
            indices=tuple(range(self.shots)),
            labels=(0,) * self.shots,
            examples=tuple(map(tuple, drawn.tolist())),
            bos=(BOS,),
            sep=(SEP,),
            requested=self.shots,
            seed=1,
        )

    def query_list(self) -> list[Query]:
        drawn = torch.randint(10, 400, (self.queries, self.tokens), generator=torch.Generator().manual_seed(2))
        return [
            Query(index=number, gold=number % 2, prompt_ids=tuple(ids), answers=((5,), (6,)))
            for number, ids in enumerate(drawn.tolist())
        ]

    def batches(self) -> list[QueryBatch]:
        queries, most = self.query_list(), max(1, self.batch_tokens // self.tokens)
        return [collate(queries[start : start + most]) for start in range(0, self.queries, most)]


WORKLOADS = {
    "tiny": Workload(size="tiny", prefix=96, shots=8, queries=4, tokens=12),
    "gpt2": Workload(size="gpt2", prefix=1000, shots=20, queries=32, tokens=40),
    "fairseq-1.3b": Workload(size="fairseq-1.3b", prefix=1600, shots=32, queries=64, tokens=40),
    "smollm2": Workload(size="smollm2", prefix=560, shots=32, queries=32, tokens=20),
    "gemma3": Workload(size="gemma3", prefix=560, shots=32, queries=32, tokens=20),
}


def ready_probe(model: PreTrainedModel, workload: Workload) -> ICLProbe:
    """A probe whose prefixes have run and whose fine-tuning is made up: ready for `validation_step`."""
    demonstrations = workload.demonstrations()
    probe = ICLProbe(model, demonstrations, finetuned=made_up_finetuning(model, demonstrations)).eval()
    probe.begin_pass()
    return probe


def made_up_finetuning(model: PreTrainedModel, demonstrations: Demonstrations) -> Finetuned:
    """Key/value parameters moved at random, and random query vectors of the demonstration tokens."""
    masters = Masters(model)
    with torch.no_grad():
        for parameter in masters.parameters:
            parameter.add_(torch.randn_like(parameter), alpha=1e-3)
    heads, _, width = head_counts(model.config)
    shape = model.config.num_hidden_layers, len(demonstrations.prefix_token_ids), heads * width
    queries = torch.randn(shape, device=model.device)
    return Finetuned(
        overlay=masters.overlay(), learning_rate=0.01, losses=(), update_norms=(), training_queries=queries
    )


def observe(model: PreTrainedModel, condition: Condition, batches: Sequence[QueryBatch]) -> None:
    """All queries under one condition, its prefix included."""
    with Capture(model) as capture, torch.inference_mode():
        view = View.prepare(capture, condition)
        for batch in batches:
            view.observe(capture, batch)


def whole_inputs(batch: QueryBatch, before: tuple[int, ...]) -> Tensor:
    """The rows of a batch with the tokens that stand before each, as plain transformers takes them."""
    return torch.cat([torch.tensor(before).expand(len(batch.token_ids), -1), batch.token_ids], 1)
