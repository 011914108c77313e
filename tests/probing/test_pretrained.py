"""Every reported number of a pretrained model equals the oracle's, where its package is installed."""

import pytest
from pretrained import pretrained_deviations

from lightning_icl.models.packaged import installed_pieces

# The other packaged model takes minutes: python -m benchmarks.exactness --model gemma-3-270m


@pytest.mark.skipif(not installed_pieces("smollm2-135m"), reason="lightning-icl[smollm2] is not installed")
def test_every_number_equals_the_oracle() -> None:
    tokens, found = pretrained_deviations("smollm2-135m", "tiny-sst2", None, shots=1, limit=1)
    assert tokens > 5
    assert max(found.values()) < 2e-4, {name: value for name, value in found.items() if value >= 2e-4}
