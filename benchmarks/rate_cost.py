"""What choosing the learning rate costs: a comparison with `--lr auto` against the same with a rate given, in turn.

    python -m benchmarks.rate_cost              # GPT-2 124M shape, float32, 32 shots, prefix of about 640 tokens
    python -m benchmarks.rate_cost --layers 2 --width 64 --queries 16 --rounds 1

Both are whole comparisons, from the model in memory to the saved results. Random weights and random words, so that no
rate has anything to find; as many rates are tried as ever.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.random_words import random_words
from benchmarks.rounds import Ratio, measure
from benchmarks.workload import WORKLOADS
from lightning_icl import compare


def main(words: Sequence[str] | None = None) -> None:
    """Print the ratio of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--words", type=int, default=14, help="words of a sentence")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    model = WORKLOADS["gpt2"].but(layers=arguments.layers, width=arguments.width).model()
    with tempfile.TemporaryDirectory() as place:
        # Enough training rows beside the demonstrations for the held-out ones.
        data = random_words(Path(place), arguments.queries, words=arguments.words, training=256)
        compared = partial(compare, model, data.task, tokenizer=data.tokenizer, shots=32)
        candidates = {"auto": partial(compared, lr="auto"), "given": partial(compared, lr=1e-3)}
        # What the runs say and draw is not the question.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            seconds = measure(candidates, arguments.rounds)
    ratio = Ratio.of("--lr auto / rate given", seconds["auto"], seconds["given"], target="≤ 1.5")
    print(f"{ratio.name}: {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}), to be {ratio.target}")


if __name__ == "__main__":
    main()
