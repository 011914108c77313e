# %% [markdown]
# # Your model and task, in Python
#
# A model is a name (of the hub, a folder, `builtin`) or an object: any causal language model of a supported
# architecture with its tokenizer. It is left as it was.

# %%
from lightning_icl import Task, compare, sweep
from lightning_icl import find_model, load_model

model = load_model(find_model("builtin"))
# or transformers.AutoModelForCausalLM.from_pretrained(...)

# %% [markdown]
# A task is a template and answer words, by label number. Rows are lists of dictionaries, data sets of `datasets`,
# or frames of pandas, by split: demonstrations are drawn from `train`, queries from `validation`.

# %%
from random import Random

task = Task(
    name="reviews",
    templates={"own": "Sentence: {text} Label:"},
    answers=("Negative", "Positive"),
)
things = "film story plot cast scene script ending music".split()
bad = "dull stale flat boring weak tedious".split()
good = "fine rich vivid honest splendid elegant".split()


def review(random: Random, label: int) -> dict[str, str | int]:
    """Two things, both bad (label 0) or both good (1)."""
    one, other = random.sample(things, 2)
    first, second = random.sample(good if label else bad, 2)
    text = f"the {one} is {first} and the {other} is {second}"
    return {"text": text, "label": label}


random = Random(1)
reviews = [review(random, number % 2) for number in range(128)]
rows = {"train": reviews[:96], "validation": reviews[96:]}
reviews[:2]

# %%
results = compare(model, task, data=rows, shots=32, lr=0.1)

# %%
results

# %% [markdown]
# Wrong rows and arguments are found before any weights are read, and the message says what is allowed:

# %%
from lightning_icl.errors import UserError

for wrong in ({"shots": "many"}, {"shot": "8"}, {"probe_token": "last"}):
    try:
        compare(model, task, data=rows, **wrong)
    except UserError as error:
        print(error)

# %% [markdown]
# ## A learning rate
#
# A rate that suits one model harms another. A sweep tries several, and several seeds, each of which draws other
# demonstrations; seed and rate are chosen on held-out training rows, which are not reported.

# %%
swept = sweep(
    model,
    task,
    data=rows,
    shots=32,
    seeds=[1, 2],
    lrs=[0.03, 0.1, 0.3],
    heldout=16,
)

# %%
frame = swept.to_frame()
accuracy = frame[frame.measure == "accuracy"]
runs = ["lr", "seed", "selected"]
accuracy.pivot_table("value", runs, "figure").round(2)

# %% [markdown]
# ## In Lightning's words
#
# The same from its parts, where a training program of your own is to have them: a data module, a module and a
# callback.

# %%
import lightning as L

from lightning_icl import ICLDataModule, ICLProbe, KVFinetuning

data = ICLDataModule(task, model, data=rows, shots=32)
probe = ICLProbe(model, data.demonstrations)
trainer = L.Trainer(
    max_epochs=1,
    logger=False,
    enable_checkpointing=False,
    callbacks=[KVFinetuning(learning_rate=0.1)],
)
trainer.fit(probe, datamodule=data)
trainer.validate(probe, datamodule=data, verbose=False)

# %%
assert probe.comparison is not None
float(probe.comparison.sim_aou.normalised.value)
