"""The candidates of the speed table: this program's observations, plain transformers, the peers' way, the limit."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from benchmarks.workload import Workload, ready_probe, whole_inputs
from lightning_icl.data.module import demonstration_steps
from lightning_icl.models.architecture import architecture_of
from lightning_icl.models.kv import GradientGate
from lightning_icl.models.onednn import mkl_is_slow, onednn_linear
from lightning_icl.models.projection import weight_of
from lightning_icl.probing.contrast import ContrastMetrics
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe

Candidates = Mapping[str, Callable[[], object]]


def observations(model: PreTrainedModel, workload: Workload) -> tuple[ICLProbe, Candidates]:
    """Our observations of all batches, and the whole comparison."""
    probe, batches = ready_probe(model, workload), [batch.to(model.device) for batch in workload.batches()]

    def observe(name: str) -> None:
        with probe.capture:
            for batch in batches:
                probe.views[name].observe(probe.capture, batch)

    @torch.inference_mode()
    def compare() -> None:
        for number, batch in enumerate(batches):
            probe.validation_step(batch, number)

    return probe, {
        "zsl": lambda: observe("zsl"),
        "icl": lambda: observe("icl"),
        "ft": lambda: observe("ft"),
        "comparison": compare,
    }


def plain_forward(model: PreTrainedModel, workload: Workload) -> Callable[[], object]:
    """Zero-shot forward passes of the same batches in plain transformers, logits at the last position only."""
    inputs = [whole_inputs(batch, workload.demonstrations().bos).to(model.device) for batch in workload.batches()]

    @torch.inference_mode()
    def run() -> None:
        for ids in inputs:
            model(input_ids=ids, use_cache=False, logits_to_keep=1)

    return run


def peers_way(model: PreTrainedModel, workload: Workload) -> Callable[[], object]:
    """One query's eager forward pass of prefix and query together, its attention maps and hidden states kept."""
    ids = whole_inputs(workload.batches()[0], workload.demonstrations().prefix_token_ids)[:1].to(model.device)

    @torch.inference_mode()
    def run() -> object:
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        try:
            return model(
                input_ids=ids, use_cache=False, output_attentions=True, output_hidden_states=True, logits_to_keep=1
            )
        finally:
            model.set_attn_implementation(before)

    return run


def harness(model: PreTrainedModel, workload: Workload) -> Callable[[], object] | None:
    """lm-evaluation-harness scoring both answers of up to four of the same queries; None where it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("lm_eval", "accelerate")):
        return None
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(number): number for number in range(model.config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="0")), bos_token="0", eos_token="2", pad_token="1"
    )
    scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")
    prefix = list(workload.demonstrations().prefix_token_ids)
    requests = [
        ((str(query.index), str(answer)), [*prefix, *query.prompt_ids], list(answer))
        for query in workload.query_list()[: harness_queries(workload)]
        for answer in query.answers
    ]
    return lambda: scorer._loglikelihood_tokens(requests, disable_tqdm=True)


def harness_queries(workload: Workload) -> int:
    return min(4, workload.queries)


def matrix_products(model: PreTrainedModel, workload: Workload, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """The products of weights and tokens that a zero-shot pass cannot do without, and how many operations they take."""
    tokens = workload.queries * workload.tokens
    architecture = architecture_of(model.config)
    last = list(model.get_submodule(architecture.layers).children())[-1]
    # What follows attention in the last block is read where the answer is predicted, and so are the logits.
    narrow = {
        model.get_output_embeddings(),
        *(part for name in architecture.mlp for part in last.get_submodule(name).modules()),
    }
    products: list[tuple[Tensor, Tensor]] = []
    inputs: dict[tuple[int, int], Tensor] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            weight = weight_of(module).detach().to(dtype)
            rows, width = workload.queries if module in narrow else tokens, weight.shape[1]
            made = inputs.setdefault((rows, width), torch.randn(rows, width, dtype=dtype, device=weight.device))
            products.append((made, weight))
    # By the library that is faster, or the rate would be no limit.
    by_onednn = model.device.type == "cpu" and dtype == torch.float32 and mkl_is_slow()
    multiply = onednn_linear if by_onednn else linear

    @torch.inference_mode()
    def run() -> None:
        for tokens_in, weight in products:
            multiply(tokens_in, weight)

    return run, sum(2 * made.shape[0] * weight.numel() for made, weight in products)


def in_bfloat16(model: PreTrainedModel, workload: Workload) -> Callable[[], object]:
    """Our zero-shot observation by a copy of the model in bfloat16."""
    copied = copy.deepcopy(model).to(torch.bfloat16)  # type: ignore[arg-type]
    return observations(copied, workload)[1]["zsl"]


def finetuning(model: PreTrainedModel, workload: Workload) -> Candidates:
    """Fine-tuning by the Trainer, and a bare loop of forward and backward over the same examples and parameters."""
    demonstrations = workload.demonstrations()
    steps = demonstration_steps(demonstrations)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*(does not have many workers|in eval mode|val_dataloader|LeafSpec).*")

    def fit() -> None:
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[KVFinetuning(1e-4)],
        )  # fmt: skip
        trainer.fit(ICLProbe(model, demonstrations), steps)

    def bare() -> None:
        gate = GradientGate(model)
        for ids in steps:
            logits = model(input_ids=ids, use_cache=False).logits
            cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
            model.zero_grad(set_to_none=True)
        gate.open()

    return {"fit": fit, "bare loop": bare}


def kendall(probe: ICLProbe, workload: Workload) -> Callable[[], object]:
    """The metrics at the level of attention to the demonstrations alone."""
    batches = workload.batches()
    with probe.capture:
        seen = [[probe.views[name].observe(probe.capture, batch) for name in ("icl", "ft")] for batch in batches]

    @torch.inference_mode()
    def run() -> None:
        for metrics in probe.metrics:
            assert isinstance(metrics, ContrastMetrics)
            for batch, (icl, ft) in zip(batches, seen, strict=True):
                metrics.update_kendall(batch, icl, ft)

    return run
