# %% [markdown]
# # Momentum and weight updates
#
# The paper reads attention to demonstrations as an update of weights. Two ways to look at that: put an update in
# the place of the demonstrations and see what is left of in-context learning; and give attention the momentum
# that gradient descent can have.
#
# ## Demonstrations replaced by an update of each head

# %%
from lightning_icl import weight_update

updates = weight_update("builtin", "tiny-sst2", limit=32)

# %% [markdown]
# Each rung puts something simpler in the place of the demonstrations; [Weight updates](../weight-update.md) says
# what. `kl` is the distance from in-context learning, in nats; 0 would be the same.

# %%
frame = updates.to_frame()
shown = frame[frame.figure.isin(["accuracy", "agreement", "kl"])]
table = shown.pivot_table("value", "condition", "figure")
table.loc[list(frame.condition.unique())].round(3)

# %% [markdown]
# ## The same matrices, head by head
#
# The dual form writes demonstrations and fine-tuning as updates of one matrix in each head. If fine-tuning made
# the update that the demonstrations make, their cosine would be near 1.

# %%
from lightning_icl import dual_form

heads = dual_form("builtin", "tiny-sst2", limit=16).to_frame()

# %%
cosines = heads[heads.figure == "cosine"]
cosines.pivot_table("value", "layer", "head").round(2)

# %% [markdown]
# ## Momentum attention
#
# Section 5 of the paper adds a moving average of values to attention. As a function it works on tensors (batch,
# head, token, width). How far it is from plain attention, by η:

# %%
import torch

from lightning_icl import momentum_attention

torch.manual_seed(0)
query, key, value = torch.randn(3, 1, 2, 5, 8).unbind(0)
attention = torch.nn.functional.scaled_dot_product_attention
plain = attention(query, key, value, is_causal=True)
for eta in (0.9, 0.5, 0.1, 0.01):
    output = momentum_attention(query, key, value, eta=eta)
    print(f"η = {eta}: {float((output - plain).norm()):.2f}")

# %% [markdown]
# `to_momentum` gives a model such attention. One that was trained without it is harmed by it, the more the larger
# η. The loss of one sentence, in nats a token:

# %%
from lightning_icl import find_model, load_model
from lightning_icl import load_tokenizer, to_momentum

source = find_model("builtin")
text = "the story is honest and the director is rich ."
tokens = load_tokenizer(source)(text, return_tensors="pt").input_ids


def loss_of(model: torch.nn.Module) -> float:
    """Of the sentence, in nats a token."""
    with torch.inference_mode():
        return float(model(input_ids=tokens, labels=tokens).loss)


print(f"plain:   {loss_of(load_model(source)):.2f}")
for eta in (0.1, 0.5, 0.9):
    changed = load_model(source)
    to_momentum(changed, eta=eta)
    print(f"η = {eta}: {loss_of(changed):.2f}")

# %% [markdown]
# A model has to be trained with it. `builtin-momentum` was, and can be compared like any other:

# %%
from lightning_icl import compare

momentum = compare("builtin-momentum", "tiny-sst2", limit=32)

# %%
momentum
