"""The LightningModule: fit one demonstration at a time, validate a query under every condition.

A query's whole way is here: `validation_step` looks at a batch under zero-shot, in-context and fine-tuned
conditions and streams the three observations into metrics. Nothing of size (queries x layers x width) is kept.
"""

import time
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from transformers import PreTrainedModel

from lightning_icl.errors import ProtocolError
from lightning_icl.metrics.bootstrap import REPLICATES, Bootstrapped, poisson_weights
from lightning_icl.metrics.gathering import add_up, gathered
from lightning_icl.metrics.kendall import InContext
from lightning_icl.probing._backoff import Backoff
from lightning_icl.probing._passes import Pass, prepared
from lightning_icl.probing.contrast import MAIN, Comparison, Contrast, ContrastMetrics, by_name
from lightning_icl.probing.findings import Findings, Prediction, accuracy, predictions_of
from lightning_icl.probing.finetuning_run import Finetuned
from lightning_icl.probing.module import FinetunedModule
from lightning_icl.probing.observation import View
from lightning_icl.records import Condition, Demonstrations, QueryBatch


class ICLProbe(FinetunedModule):
    """A causal language model under study: zero-shot, in-context and fine-tuned, side by side.

    `Trainer.fit` with a `KVFinetuning` callback makes the fine-tuned condition; `Trainer.validate` compares. Without
    fine-tuning, `validate` reports zero-shot and in-context predictions alone.

    Args:
        model: a Hugging Face causal language model of a supported architecture.
        demonstrations: the examples in the prompt, as an `ICLDataModule` chose them.
        finetuned: a fine-tuning on them that was made before.
        contrasts: comparisons beside the paper's own.
        readings: other readings of the answers, of conditions with the inputs of zero-shot or in-context learning.
        replicates: of the bootstrap behind every interval; 0 for none.
        drop_nonfinite: whether a fine-tuned condition that yields NaN is left out with its contrasts, instead of ending
            the pass.

    Raises:
        ModelError: the architecture cannot be probed rightly, or the model carries adapters or is quantised.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        demonstrations: Demonstrations,
        *,
        finetuned: Finetuned | None = None,
        contrasts: Sequence[Contrast] = (),
        readings: Sequence[Condition] = (),
        replicates: int = REPLICATES,
        drop_nonfinite: bool = False,
    ) -> None:
        super().__init__(model, demonstrations, finetuned)
        self.contrasts, self._readings = tuple(contrasts), tuple(readings)
        self.findings = Findings()
        """What the last `validate` has shown."""
        self.metrics = nn.ModuleList()
        self._replicates, self._drop_nonfinite = replicates, drop_nonfinite
        self._predictions: list[Prediction] = []
        self._dropped: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self.views: Mapping[str, View] = {}
        """The conditions made ready, by name, while a pass goes on."""
        # Outlives a pass: what was learnt about the device's memory stays true.
        self._backoff = Backoff()
        self._started = 0.0

    def also_compare(self, contrasts: Sequence[Contrast]) -> None:
        """Compare these too in the next pass; they may rest on the fine-tuning just made."""
        self.contrasts += tuple(contrasts)

    @property
    def studied(self) -> list[Contrast]:
        """The paper's comparison, once fitting has made it, and the contrasts beside it."""
        own = [] if self.finetuned is None else [Contrast.of(self.demonstrations, self.finetuned)]
        return [*own, *self.contrasts]

    @property
    def conditions(self) -> dict[str, Condition]:
        """Zero-shot and in-context, other readings of them, and whatever the contrasts need, by name."""
        own = (Condition.zero_shot(self.demonstrations), Condition.in_context(self.demonstrations))
        plain = (*own, *self._readings)
        # Zero-shot and in-context come first, so that they are observed before anything can be forgotten.
        return {item.name: item for item in plain} | by_name(self.studied)

    @property
    def predictions(self) -> Sequence[Prediction]:
        """Of every query, in data order, once `validate` has made them."""
        return self.findings.predictions

    @property
    def comparisons(self) -> Mapping[str, Comparison]:
        """Of every contrast, by name."""
        return self.findings.comparisons

    @property
    def comparison(self) -> Comparison | None:
        """The paper's comparison, once `validate` has made it."""
        return self.comparisons.get(MAIN)

    @property
    def bootstraps(self) -> Mapping[str, Mapping[str, Bootstrapped]]:
        """By contrast, the figures' replicates and intervals."""
        return self.findings.bootstraps

    @property
    def dropped(self) -> Mapping[str, str]:
        """Names of conditions left out, with the reason."""
        return self.findings.dropped

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each part of the work."""
        taken = {"prefix": 0.0, "finetune": self.finetuning_seconds, "validate": 0.0, "kendall": 0.0, "gather": 0.0}
        return taken | dict(self.findings.seconds)

    def on_validation_epoch_start(self) -> None:
        """Begin a pass, in the Trainer's precision."""
        with self.trainer.precision_plugin.forward_context():
            self.begin_pass()

    def begin_pass(self) -> None:
        """Run every condition's prefix once, and start all metrics anew."""
        started = time.perf_counter()
        # Emptied first, so that a failed pass leaves no figures of an earlier one.
        self.findings, self._predictions, self._dropped = Findings(), [], {}
        # Made anew in each pass: contrasts may have been added, and each needs metrics of its own shape.
        self.metrics = nn.ModuleList(
            ContrastMetrics.of_model(contrast, self.model, self._replicates) for contrast in self.studied
        )
        with self.capture:
            self.views = prepared(self.capture, self.conditions.values())
        self._started = time.perf_counter()
        self._seconds = {"prefix": self._started - started, "kendall": 0.0}

    def validation_step(self, batch: QueryBatch, batch_idx: int) -> None:
        """Look at a batch under every condition and stream what is seen into the metrics.

        A fine-tuned condition is looked at when its contrast's turn comes and forgotten after the last one that needs
        it, so that many of them need no more memory than one.
        """
        if not len(batch.query_ids):  # this process's share is empty; see `share_loader`
            return
        contrasts = self.studied
        # Drawn once and shared: all metrics of all contrasts see the same replicates.
        weights = poisson_weights(batch.query_ids, self._replicates) if self._replicates and contrasts else None
        # Later contrasts overwrite earlier ones, which leaves the last one that needs each input.
        last = {item.inputs: contrast.name for contrast in contrasts for item in contrast.conditions}
        in_context: dict[Hashable, InContext] = {}
        with self.capture:
            dropped = self._dropped if self._drop_nonfinite else None
            queries = Pass(self.capture, self.views, batch, self._backoff, dropped)
            for name in ("zsl", "icl", *(item.name for item in self._readings)):
                # These have predictions of their own even when no contrast needs them.
                queries.observe(name)
            for contrast, metrics in zip(contrasts, self.metrics, strict=True):
                for item in contrast.conditions:
                    queries.observe(item.name)
                if not self._is_dropped(contrast):
                    self._compare(queries, metrics, weights, in_context)
                for item in contrast.conditions:
                    if last[item.inputs] == contrast.name:
                        queries.forget(item.name)
        self._predictions += predictions_of(batch, queries.scores)

    def _is_dropped(self, contrast: Contrast) -> bool:
        return any(item.name in self._dropped for item in contrast.conditions)

    def _compare(
        self, queries: Pass, metrics: nn.Module, weights: Tensor | None, in_context: dict[Hashable, InContext]
    ) -> None:
        """The paper's levels, in the precision of the observations whatever the model runs in."""
        # `ModuleList` loses the type of its items.
        assert isinstance(metrics, ContrastMetrics)
        zsl, icl, ft = (queries.read(item.name) for item in metrics.contrast.conditions)
        # Autocast would compute cosines and rank scores in half precision.
        with torch.autocast(self.model.device.type, enabled=False):
            metrics.update(queries.batch, zsl, icl, ft, weights)
            started = time.perf_counter()
            metrics.update_kendall(queries.batch, icl, ft, weights, in_context)
            # Without waiting for the device, so a lower bound on a GPU; it serves to compare controls, not kernels.
            self._seconds["kendall"] += time.perf_counter() - started

    def on_validation_epoch_end(self) -> None:
        """Gather predictions from all processes in data order, compute the metrics and log the main figures.

        Raises:
            ProtocolError: no process has looked at a query.
        """
        started = time.perf_counter()
        # Batches are sorted by length and divided over processes; users expect the order of their file.
        shares = gathered((self._predictions, self._dropped))
        predictions = sorted((item for own, _ in shares for item in own), key=lambda prediction: prediction.index)
        if not predictions:
            raise ProtocolError("No query was looked at, so that there is no figure. Give the data at least one query.")
        # A condition that diverged in one process is dropped in all, or figures would mix different queries.
        self._dropped = {name: reason for _, dropped in shares for name, reason in dropped.items()}
        for prediction in predictions:
            for condition in self._dropped:
                prediction.scores.pop(condition, None)
        every = [metrics for metrics in self.metrics if isinstance(metrics, ContrastMetrics)]
        # All of them, also what one process alone has dropped: every process must bring the same sums.
        add_up(metric for metric in self.metrics.modules() if isinstance(metric, Metric))
        # With what this process has waited for the others.
        self._seconds["gather"] = time.perf_counter() - started
        sound = {metrics.contrast.name: metrics for metrics in every if not self._is_dropped(metrics.contrast)}
        comparisons = {name: metrics.compute() for name, metrics in sound.items()}
        bootstraps = {name: metrics.bootstrap() for name, metrics in sound.items()}
        self._seconds["validate"] = time.perf_counter() - self._started
        self.findings = Findings(
            predictions=tuple(predictions),
            comparisons=comparisons,
            bootstraps=bootstraps,
            dropped=self._dropped,
            seconds=self._seconds,
        )
        self._log_main_figures()
        self.views = {}  # prefixes and overlays take memory that the next fit needs

    def _log_main_figures(self) -> None:
        for condition in (name for name in self.views if name not in self.dropped):
            self.log(f"accuracy/{condition}", accuracy(self.predictions, condition), rank_zero_only=True)
        if self.comparison is not None:
            for level, result in self.comparison._asdict().items():
                self.log(level, result.value, rank_zero_only=True)
