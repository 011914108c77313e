"""Which model sizes fit where, computed: weights, prefixes, a batch's activations and what fine-tuning keeps.

    python -m benchmarks.capacity

Bytes, with b a number's width (4 or 2), N parameters, L layers, width E, key/value width K, V words, P prefix tokens, T
batch tokens, S tokens of the longest demonstration, and M = 2 L E K key/value parameters:

    probing      b (N + 2 L K (P + 2) + L E P + T (4 E + 3 F) + O) + 4 M
    fine-tuning  b (N + L E P) + 2 (4 + b) M + b S L (8 E + 3 F) + 6 S V

Probing holds weights, the keys and values of the prefixes (zero-shot and fine-tuned have BOS alone), the query
vectors of training, one layer's activations (F is feed-forward width; a gated one has two tensors of it), the float32
masters that fine-tuning left, and O numbers laid over the model in its own type: none where that is float32, else M,
and 3 M / 2 where query, key and value are fused. Fine-tuning holds weights, query vectors, float32 masters and their
gradients, the model's gradients, a copy to go back to, all layers' activations of one demonstration, and logits. The
runtime's own memory (about 1 GB on a GPU) is apart.
"""

from dataclasses import dataclass

from lightning_icl.data.batches import ON_ACCELERATORS


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model decides its memory."""

    name: str
    parameters: float
    layers: int
    width: int
    kv_width: int
    feed_forward: int
    words: int
    fused: bool = False


SHAPES = (
    Shape(
        name="GPT-2 124M",
        parameters=0.124e9,
        layers=12,
        width=768,
        kv_width=768,
        feed_forward=3072,
        words=50_257,
        fused=True,
    ),
    Shape(
        name="fairseq 1.3B (XGLM)",
        parameters=1.31e9,
        layers=24,
        width=2048,
        kv_width=2048,
        feed_forward=8192,
        words=51_200,
    ),
    Shape(name="GPT 2.7B", parameters=2.7e9, layers=32, width=2560, kv_width=2560, feed_forward=10_240, words=50_257),
    Shape(name="Llama 8B", parameters=8.03e9, layers=32, width=4096, kv_width=1024, feed_forward=14_336, words=128_256),
    Shape(
        name="Llama 70B", parameters=70.6e9, layers=80, width=8192, kv_width=1024, feed_forward=28_672, words=128_256
    ),
)


def probing(shape: Shape, number: int, prefix: int = 2000, batch: int = ON_ACCELERATORS) -> float:
    """Bytes of `Trainer.validate` with numbers of `number` bytes."""
    learnt = 2 * shape.layers * shape.width * shape.kv_width
    laid_over = learnt * (1.5 if shape.fused else float(number < 4))
    states = 2 * shape.layers * shape.kv_width * (prefix + 2) + shape.layers * shape.width * prefix
    activations = batch * (4 * shape.width + 3 * shape.feed_forward)
    return number * (shape.parameters + states + activations + laid_over) + 4 * learnt


def finetuning(shape: Shape, number: int, prefix: int = 2000, longest: int = 200) -> float:
    """Bytes of `Trainer.fit`."""
    learnt = 2 * shape.layers * shape.width * shape.kv_width
    activations = longest * shape.layers * (8 * shape.width + 3 * shape.feed_forward)
    held = number * (shape.parameters + shape.layers * shape.width * prefix + activations)
    return held + 2 * (4 + number) * learnt + 6 * longest * shape.words


def main() -> None:
    print("| model | float32: probing, fine-tuning | bfloat16: probing, fine-tuning | smallest card, bfloat16 |")
    print("|---|---|---|---|")
    for shape in SHAPES:
        cells = [f"{probing(shape, b) / 1e9:.1f}, {finetuning(shape, b) / 1e9:.1f} GB" for b in (4, 2)]
        needed = max(probing(shape, 2), finetuning(shape, 2)) / 1e9 + 1
        card = next((f"{size} GB" for size in (8, 16, 24, 40, 80, 141) if needed <= 0.9 * size), "none alone")
        print(f"| {shape.name} | {cells[0]} | {cells[1]} | {card} |")


if __name__ == "__main__":
    main()
