"""Packed text: nothing lost, nothing padded, borders kept, and shares of a mixture that add up."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_models import tiny_model
from tiny_task import word_tokenizer
from transformers import PreTrainedTokenizerFast

from lightning_icl.errors import TextError
from lightning_icl.models.finding import builtin_folder, find_model
from lightning_icl.models.loading import load_tokenizer
from lightning_icl.pretraining._blocks import TrainingBlocks
from lightning_icl.pretraining._module import CausalPretraining
from lightning_icl.pretraining.data import Share
from lightning_icl.pretraining.packing import PackedText, TextBlocks, encode_text
from lightning_icl.pretraining.settings import PretrainSettings
from lightning_icl.pretraining.text import find_text

BLOCK = 8


def packed(folder: Path, documents: list[str], block: int = BLOCK, bos: bool = True) -> PackedText:
    (folder / "texts").mkdir()
    for number, text in enumerate(documents):
        (folder / "texts" / f"{number}.txt").write_text(text)
    tokenizer = word_tokenizer(bos=bos)
    encode_text(find_text(str(folder / "texts"), "text"), tokenizer, folder / "tokens")
    return PackedText(folder / "tokens", tokenizer.eos_token_id, block, "text")


def words(least: int, most: int) -> str:
    return " ".join(f"w{number}" for number in range(least, most))


def test_documents_follow_each_other_with_eos_between(tmp_path: Path) -> None:
    text = packed(tmp_path, ["w5 w6\nw7", "w8"])
    assert text.tokens.tolist() == [1, 5, 6, 7, 2, 1, 8, 2]


def test_without_a_bos_token_eos_alone_parts_documents(tmp_path: Path) -> None:
    text = packed(tmp_path, ["w5 w6", "w8 w9 w10"], block=4, bos=False)
    assert text.tokens.tolist() == [5, 6, 2, 8, 9, 10, 2]


def test_an_epoch_reads_every_token_but_a_rest_and_the_rest_is_another_one_each_time(tmp_path: Path) -> None:
    text = packed(tmp_path, [words(10, 40), words(40, 61), words(61, 90)])
    ring, blocks = text.tokens.tolist(), TextBlocks(text, seed=3)
    whole, rest = divmod(len(ring), BLOCK)
    assert rest > 0
    left_out = set()
    for epoch in range(6):
        read = [blocks[epoch * whole + number][0].tolist() for number in range(whole)]
        twice = ring + ring
        starts = sorted(
            next(s for s in range(len(ring)) if twice[s : s + BLOCK] == block) for block in read
        )  # every window of these texts occurs once
        covered = sorted((start + step) % len(ring) for start in starts for step in range(BLOCK))
        assert len(set(covered)) == whole * BLOCK
        left_out.add(tuple(sorted(set(range(len(ring))) - set(covered))))
    assert len(left_out) > 1


def test_the_same_seed_gives_the_same_blocks_in_any_order_of_asking(tmp_path: Path) -> None:
    text = packed(tmp_path, [words(10, 90)])
    asked = [TextBlocks(text, seed=3)[number][0].tolist() for number in (25, 2, 11)]
    one = TextBlocks(text, seed=3)
    assert [one[number][0].tolist() for number in (25, 2, 11)] == asked
    assert [TextBlocks(text, seed=4)[number][0].tolist() for number in (25, 2, 11)] != asked


def test_positions_restart_at_every_document(tmp_path: Path) -> None:
    text = packed(tmp_path, ["w5 w6", "w7", words(10, 30)], block=12)
    assert text.window(0)[0].tolist() == [1, 5, 6, 2, 1, 7, 2, 1, 10, 11, 12, 13]
    assert text.window(0)[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]
    assert text.window(9)[1].tolist() == list(range(12))


@pytest.mark.parametrize("variant", ["llama", "gpt2", "gpt_neox"])
def test_separate_documents_do_not_see_each_other(variant: str, tmp_path: Path) -> None:
    text = packed(tmp_path, [words(5, 9), words(20, 26), words(30, 50)], block=20)
    ids, positions = text.window(0)
    settings = PretrainSettings(out="unused", separate_documents=True)
    model = tiny_model(variant)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits, losses = CausalPretraining(model, settings, end=0)._losses(ids[None], positions[None])
        begins = [*positions.eq(0).nonzero().flatten().tolist(), len(ids)]
        assert len(begins) == 4
        for start, end in pairwise(begins):
            alone = model(ids[None, start:end]).logits.double()
            torch.testing.assert_close(
                logits[0, start : end - 1].double(), alone[0, : end - 1 - start], atol=1e-5, rtol=0
            )
            expected = -alone[0, :-1].log_softmax(-1).gather(1, ids[start + 1 : end, None])[:, 0]
            torch.testing.assert_close(losses[0, start : end - 1].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_mixture_keeps_its_share_at_every_moment_and_skips_nothing(share: float, tmp_path: Path) -> None:
    text = packed(tmp_path, [words(10, 90)])
    settings = PretrainSettings(
        out="unused", text="given", text_share=share, block=BLOCK, short_block=BLOCK, short_steps=0, batch=10, steps=5
    )
    tokenizer = word_tokenizer()
    mixed = TrainingBlocks(settings, tokenizer, TextBlocks(text, settings.seed))
    alone = TextBlocks(text, settings.seed)
    made = TrainingBlocks(
        PretrainSettings(out="unused", block=BLOCK, short_block=BLOCK, short_steps=0), tokenizer, None
    )
    read = generated = 0
    for number in range(len(mixed)):
        ids = mixed[number][0]
        if read < len(mixed) * share and torch.equal(ids, alone[read][0]):
            read += 1
        else:
            assert torch.equal(ids, made[generated][0])
            generated += 1
        assert abs(read - share * (number + 1)) < 1
    assert read + generated == 50


def test_processes_divide_every_step_among_them() -> None:
    shares = [Share(total=24, rank=rank, world=3) for rank in range(3)]
    for share in shares:
        share.done = 12
    parts = [list(share) for share in shares]
    assert [len(share) for share in shares] == [8, 8, 8]
    for step in range(2):  # of six blocks, two for each process
        together = {number for part in parts for number in part[2 * step : 2 * step + 2]}
        assert together == set(range(12 + 6 * step, 18 + 6 * step))


def test_the_built_in_model_would_read_the_same_documents_again() -> None:
    folder = builtin_folder("builtin")
    settings = PretrainSettings(**yaml.safe_load((folder / "train.yaml").read_text()))
    blocks = TrainingBlocks(settings, load_tokenizer(find_model(str(folder))), None)
    digest = hashlib.sha256()
    for number in (0, 5, 31_999, 32_000, 40_001):
        ids, weights, _ = blocks[number]
        digest.update(ids.numpy().tobytes() + weights.numpy().tobytes())
    assert digest.hexdigest() == "f1c63c10cce12cba1674f8a17fc61eafe46fd43253efc33005a986cc9961c707"


def test_a_text_shorter_than_a_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"has 4 tokens, fewer than one block \(8\)"):
        packed(tmp_path, ["w5 w6"])


def test_a_tokenizer_that_cannot_end_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w5")
    bare = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer().backend_tokenizer)
    with pytest.raises(TextError, match="no EOS"):
        encode_text(find_text(str(tmp_path / "a.txt"), "text"), bare, tmp_path / "tokens")


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9 " * 10)
    for wanted, message in (
        (str(tmp_path / "none.txt"), "no file or folder"),
        (str(tmp_path / "empty"), "holds no .txt file"),
        (str(tmp_path / "nothing.txt"), "no text in it"),
        ("hub:", "give hub:NAME"),
        ("hub:a:b:c:d", "give hub:NAME"),
    ):
        with pytest.raises(TextError, match=message):
            find_text(wanted, "text")
    latin = find_text(str(tmp_path / "latin.txt"), "text")
    with pytest.raises(TextError, match="cannot be read as UTF-8"):
        encode_text(latin, word_tokenizer(), tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    hub = find_text("hub:Salesforce/wikitext:wikitext-103-raw-v1", "text")
    assert (hub.hub, hub.config, hub.field) == ("Salesforce/wikitext", "wikitext-103-raw-v1", "text")
    with pytest.raises(TextError, match="give local files"):
        list(hub.documents())


def test_a_large_file_is_read_in_pieces_without_losing_any(tmp_path: Path) -> None:
    lines = [words(10 + number % 50, 15 + number % 50) for number in range(9000)]
    (tmp_path / "large.txt").write_text("\n".join(lines))
    text = find_text(str(tmp_path / "large.txt"), "text")
    assert len([piece for document in text.documents() for piece in document]) > 1
    encode_text(text, word_tokenizer(), tmp_path / "tokens")
    expected = [1, *(int(word[1:]) for line in lines for word in line.split()), 2]
    assert np.memmap(tmp_path / "tokens", dtype="<i4").tolist() == expected
