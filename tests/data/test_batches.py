"""What `--batch-tokens auto` stands for, and how batches are divided among processes."""

import random

import pytest
import torch

from lightning_icl.data.batches import batch_budget, share_of
from lightning_icl.data.queries import Query, budget_batches
from lightning_icl.data.settings import DataSettings
from lightning_icl.errors import UserError
from lightning_icl.flags import flag_of
from lightning_icl.setting_values import from_text, from_yaml


def queries(count: int, longest: int = 40) -> list[Query]:
    rng = random.Random(count)
    lengths = [rng.randint(longest // 2, longest) for _ in range(count)]
    return [
        Query(index=number, gold=0, prompt_ids=(7,) * length, answers=((5,), (6,)))
        for number, length in enumerate(lengths)
    ]


def test_auto_goes_by_the_kind_of_device_and_a_number_is_taken_as_it_is() -> None:
    made, gpu = queries(2000), torch.device("cuda", 1)
    assert batch_budget("auto", made) == batch_budget("auto", made[:3]) == 1024
    assert batch_budget("auto", made, gpu) == 16_384
    assert {batch_budget(77, made, device, count) for device in (torch.device("cpu"), gpu) for count in (1, 8)} == {77}


@pytest.mark.parametrize("processes", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 64, 512])
def test_every_query_is_looked_at_by_one_process(count: int, processes: int) -> None:
    made = queries(count)
    batches = budget_batches(made, batch_budget("auto", made, processes=processes))
    shares = [share_of(batches, process, processes) for process in range(processes)]
    assert sorted(query.index for share in shares for batch in share for query in batch) == list(range(count))
    tokens = [sum(len(batch) * len(batch[0]) for batch in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(len(batch) * len(batch[0]) for batch in batches)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("processes", [2, 3, 8])
def test_with_auto_no_process_has_much_more_work_than_another(processes: int, device: str) -> None:
    made = queries(512)
    batches = budget_batches(made, batch_budget("auto", made, torch.device(device), processes))
    shares = [share_of(batches, process, processes) for process in range(processes)]
    tokens = [sum(len(batch) * len(batch[0]) for batch in share) for share in shares]
    assert sum(tokens) / (processes * max(tokens)) > 0.95
    assert len(batches) % processes == 0


def test_the_flag_takes_auto_or_a_number() -> None:
    kind = DataSettings.__dataclass_fields__["batch_tokens"].type
    assert [from_text(kind, text) for text in ("auto", "12", "all", "1.5")] == ["auto", 12, None, None]
    assert [from_yaml(kind, value) for value in ("auto", 12, "12", True)] == ["auto", 12, None, None]
    for wrong in (0, -5, 2**31):
        with pytest.raises(UserError, match=f"{flag_of('batch_tokens')} {wrong}"):
            DataSettings(batch_tokens=wrong)
