"""The public names of lightning-icl; everything else may change."""

from lightning_icl._version import __version__ as __version__
from lightning_icl.attention.ema import value_ema as value_ema
from lightning_icl.attention.momentum import MomentumAttention as MomentumAttention
from lightning_icl.attention.momentum import momentum_attention as momentum_attention
from lightning_icl.front import ICLDataModule as ICLDataModule
from lightning_icl.front import compare as compare
from lightning_icl.metrics import Kendall as Kendall
from lightning_icl.metrics import Rec2FTP as Rec2FTP
from lightning_icl.metrics import SimAM as SimAM
from lightning_icl.metrics import SimAOU as SimAOU
from lightning_icl.models.finding import find_model as find_model
from lightning_icl.models.loading import load_model as load_model
from lightning_icl.models.loading import load_tokenizer as load_tokenizer
from lightning_icl.models.momentum.conversion import from_momentum as from_momentum
from lightning_icl.models.momentum.conversion import to_momentum as to_momentum
from lightning_icl.models.momentum.registration import enable_momentum as enable_momentum
from lightning_icl.probing.finetuning import KVFinetuning as KVFinetuning
from lightning_icl.probing.probe import ICLProbe as ICLProbe
from lightning_icl.records import Condition as Condition
from lightning_icl.records import Demonstrations as Demonstrations
from lightning_icl.records import KVOverlay as KVOverlay
from lightning_icl.records import Observation as Observation
from lightning_icl.run_results import Results as Results
from lightning_icl.tasks.catalogue import resolve_tasks as resolve_tasks
from lightning_icl.tasks.task import Task as Task
