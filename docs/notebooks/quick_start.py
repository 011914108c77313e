# %% [markdown]
# # Quick start in Python
#
# One call fine-tunes a model on the demonstrations of a prompt, and looks at the same queries zero-shot (ZSL),
# with the demonstrations in the prompt (ICL) and after fine-tuning (FT). The built-in model and its tasks come
# with the package; 32 queries a task are few, and keep this page quick.

# %%
from lightning_icl import compare

results = compare("builtin", "tiny-sst2,tiny-subj", limit=32)

# %%
results  # as text: results.table()

# %% [markdown]
# Every figure has its baseline below it, and the notes say what a reader must know. [Reading the
# results](../reading-the-results.md) goes through the lines. Two of them first:
#
# - **Rec2FTP** is the share that ICL answers rightly of the queries that fine-tuning corrects. An ICL that is
#   nearly always right has 100 by necessity, so 100 proves nothing by itself.
# - **SimAOU** is the cosine of two updates of the attention outputs, ICL's and FT's, both away from zero-shot.
#
# Everything is also a tidy frame, one row a figure, with its 95% interval.

# %%
frame = results.to_frame()
shown = frame[frame.measure.isin(["accuracy", "sim_aou"])]
shown.drop(columns=["model", "control", "layer"]).round(3)

# %% [markdown]
# ## Is it more than chance?
#
# Controls are further looks at the same queries in the same pass. Here the fine-tuning's update is replaced by a
# Gaussian one of the same size (`ft-gaussian`), and one query's update by the prompt is held against another
# query's (`shuffled-query`). [Controls](../controls.md) lists all sixteen.

# %%
names = ["ft-gaussian", "shuffled-query"]
controlled = compare("builtin", "tiny-sst2", limit=32, controls=names)

# %%
frame = controlled.to_frame()
updates = frame[frame.figure.isin(["value", "raw"])]
updates = updates[updates.measure == "sim_aou"]
updates.pivot_table("value", "control", "figure").round(3)

# %% [markdown]
# The row without a name is the run itself. The prompt moves two different queries more alike than fine-tuning
# moves one as the prompt does: most of what SimAOU sees is common to all queries.
#
# ## Each query

# %%
query = controlled.predictions("tiny-sst2")[0]
print(query["prompt"])
print("right answer:", query["gold"])
query["scores"]

# %% [markdown]
# ## What to keep
#
# `save` keeps the files, which `lightning-icl report FOLDER` and `Results(FOLDER)` read again; `report` writes
# one page with curves, heads and every query.

# %%
from pathlib import Path
from tempfile import mkdtemp

folder = Path(mkdtemp())
saved = results.save(folder / "first")
page = results.report(folder / "page.html")
sorted(path.name for path in (saved / "tiny-sst2").iterdir())
