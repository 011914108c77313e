"""Trainers, callbacks and strategies as users have them: refused by name, or without any effect on the fine-tuning."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from exactness import RATE, make_trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    ModelPruning,
    RichModelSummary,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from outside_case import Case, check_case
from tiny_models import tiny_model
from tiny_task import tiny_data
from torch.utils.data import DataLoader

from lightning_icl.data.queries import collate
from lightning_icl.errors import ProtocolError, UserError
from lightning_icl.metrics.prediction import Rec2FTP
from lightning_icl.probing._protocol import check_strategy
from lightning_icl.probing.findings import accuracy
from lightning_icl.probing.finetuning import KVFinetuning
from lightning_icl.probing.probe import ICLProbe


def clip(trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1e-3)


def double_rate(trainer: L.Trainer, *_: object) -> None:
    for group in trainer.optimizers[0].param_groups:
        group["lr"] *= 2


def switch_dropout_on(trainer: L.Trainer, module: Any, *_: object) -> None:
    module.model.train()


def thaw(trainer: L.Trainer, module: L.LightningModule) -> None:
    module.requires_grad_(True)


def nudge(trainer: L.Trainer, module: Any, *_: object) -> None:
    with torch.no_grad():
        next(module.model.parameters())[0] += 1e-3


def nudge_unseen(trainer: L.Trainer, module: Any, *_: object) -> None:
    list(module.model.parameters())[-1].data.mul_(1.5)


def stop(trainer: L.Trainer, *_: object) -> None:
    trainer.should_stop = True


class NoSteps(ICLProbe):
    """A user's module that keeps the optimizer from its steps."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer_closure()


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One row: a Trainer and what comes of fitting with it."""

    situation: str
    callbacks: Callable[[], list[L.Callback]] = list
    settings: dict[str, Any] = field(default_factory=dict)
    module: type[ICLProbe] = ICLProbe
    says: Sequence[str] = ()
    """Words of the refusal; none where it must have no effect."""


ROWS = [
    Situation(situation="a schedule of accumulation", callbacks=lambda: [GradientAccumulationScheduler({0: 2})],
              says=["accumulate_grad_batches=2", "Set accumulate_grad_batches=1"]),
    Situation(situation="stochastic weight averaging", callbacks=lambda: [StochasticWeightAveraging(1e-2)],
              says=["StochasticWeightAveraging averages weights"]),
    Situation(situation="weight averaging", callbacks=lambda: [WeightAveraging()], says=["WeightAveraging"]),
    Situation(situation="an exponential average", callbacks=lambda: [EMAWeightAveraging(decay=0.5)],
              says=["EMAWeightAveraging averages weights", "Leave it out"]),
    Situation(situation="pruning", callbacks=lambda: [ModelPruning("l1_unstructured", amount=0.5)],
              says=["ModelPruning changes weights"]),
    Situation(situation="a schedule of unfreezing", callbacks=lambda: [BackboneFinetuning()],
              says=["BackboneFinetuning"]),
    Situation(situation="a search for the rate", callbacks=lambda: [LearningRateFinder()], says=["LearningRateFinder"]),
    Situation(situation="two fine-tunings at once", callbacks=lambda: [KVFinetuning(0.1)], says=["2 callbacks"]),
    Situation(situation="a callback that writes into the weights", says=["parameters of the model changed", "wte"],
              callbacks=lambda: [LambdaCallback(on_train_batch_end=nudge)]),
    Situation(situation="weights written behind the last step", says=["1 parameters of the model changed", "ln_f"],
              callbacks=lambda: [LambdaCallback(on_train_end=nudge_unseen)]),
    Situation(situation="a callback that stops early", callbacks=lambda: [LambdaCallback(on_train_batch_end=stop)],
              says=["stopped after 1 of 5 demonstrations"]),
    Situation(situation="a timer that runs out", callbacks=lambda: [Timer(duration=timedelta(microseconds=1))],
              says=["of 5 demonstrations"]),
    Situation(situation="a module that takes no steps", module=NoSteps, says=["0 steps were taken", "Leave it out"]),
    Situation(situation="most steps set", settings={"max_steps": 3}, says=["max_steps=3", "Set max_steps=-1"]),
    Situation(situation="part of the data", settings={"limit_train_batches": 2}, says=["limit_train_batches=2"]),
    Situation(situation="clipping", settings={"gradient_clip_val": 0.5}, says=["gradient_clip_val=0.5"]),
    Situation(situation="float16", settings={"precision": "16-true"}, says=["float16", "32-true"]),
    Situation(situation="accumulation of one", callbacks=lambda: [GradientAccumulationScheduler({0: 1})]),
    Situation(situation="clipping by hand", callbacks=lambda: [LambdaCallback(on_before_optimizer_step=clip)]),
    Situation(situation="another rate on the way",
              callbacks=lambda: [LambdaCallback(on_train_batch_start=double_rate)]),
    Situation(situation="dropout switched on",
              callbacks=lambda: [LambdaCallback(on_train_batch_start=switch_dropout_on)]),
    Situation(situation="all parameters thawed", callbacks=lambda: [LambdaCallback(on_train_start=thaw)]),
    Situation(situation="a long timer and a summary", callbacks=lambda: [Timer("00:01:00:00"), RichModelSummary()]),
    Situation(situation="anomalies looked for", settings={"detect_anomaly": True}),
]  # fmt: skip


def content(model: torch.nn.Module) -> dict[str, tuple[torch.Tensor, bool]]:
    return {name: (value.detach().clone(), value.requires_grad) for name, value in model.named_parameters()}


def assert_as_before(before: dict[str, tuple[torch.Tensor, bool]], model: torch.nn.Module) -> None:
    after = content(model)
    assert after.keys() == before.keys()
    for name, (value, flag) in before.items():
        assert torch.equal(after[name][0], value), name
        assert after[name][1] == flag, name


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ICLProbe:
    """A probe fine-tuned by a Trainer with nothing but the fine-tuning."""
    data = tiny_data(tmp_path_factory.mktemp("plain"))
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    make_trainer(KVFinetuning(RATE)).fit(probe, datamodule=data)
    return probe


def assert_same_finetuning(probe: ICLProbe, plain: ICLProbe) -> None:
    assert probe.finetuned is not None
    assert plain.finetuned is not None
    assert probe.finetuned.overlay.hash == plain.finetuned.overlay.hash
    assert probe.finetuned.losses == plain.finetuned.losses


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.situation)
def test_trainers(row: Situation, first: bool, plain: ICLProbe, tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path), tiny_model("gpt2")
    probe = row.module(model, data.demonstrations)
    before = content(model)
    own, others = [KVFinetuning(RATE)], row.callbacks()
    trainer = make_trainer(*(own + others if first else others + own), default_root_dir=tmp_path, **row.settings)
    if not row.says:
        trainer.fit(probe, datamodule=data)
        assert_same_finetuning(probe, plain)
    else:
        with pytest.raises(UserError) as refused:
            trainer.fit(probe, datamodule=data)
        assert all(words in str(refused.value) for words in row.says), str(refused.value)
        assert probe.finetuned is None
    assert probe.finetuning is None
    if "parameters of the model changed" not in " ".join(row.says):  # what a callback wrote is the user's
        assert_as_before(before, model)


@pytest.mark.parametrize("again", ["the same probe", "another probe", "after a failure"])
def test_a_trainer_fits_again_from_the_start(again: str, plain: ICLProbe, tmp_path: Path) -> None:
    data, model = tiny_data(tmp_path), tiny_model("gpt2")
    before = content(model)
    probe = ICLProbe(model, data.demonstrations)
    tuning = KVFinetuning(1e30 if again == "after a failure" else RATE)
    trainer = make_trainer(tuning)
    if again == "after a failure":
        with pytest.raises(UserError, match="smaller --lr"):
            trainer.fit(probe, datamodule=data)
        tuning.learning_rate = RATE
    else:
        trainer.fit(probe, datamodule=data)
    if again == "another probe":
        probe = ICLProbe(model, data.demonstrations)
    trainer.fit(probe, datamodule=data)
    assert_same_finetuning(probe, plain)
    assert_as_before(before, model)
    trainer.validate(probe, datamodule=data, verbose=False)
    assert probe.comparison is not None


def test_a_probe_that_was_fitted_is_not_fitted_without_the_callback(plain: ICLProbe, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="needs the callback KVFinetuning"):
        make_trainer().fit(plain, datamodule=tiny_data(tmp_path))


class LoggedMetric(ICLProbe):
    """A user's module that logs a metric of this package as Lightning logs metrics."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.own_rec2ftp = Rec2FTP()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        names = ("zsl", "icl", "ft")
        scores = [torch.tensor([row.scores[name] for row in self.predictions]) for name in names]
        gold, ids = (torch.tensor([getattr(row, name) for row in self.predictions]) for name in ("gold", "index"))
        self.own_rec2ftp.update(*scores, gold, ids)
        self.log("own/rec2ftp", self.own_rec2ftp)


def test_loggers_callbacks_and_logged_metrics_work(tmp_path: Path) -> None:
    data, seen, logger = tiny_data(tmp_path), [], CSVLogger(tmp_path, name="log")
    watcher = LambdaCallback(on_validation_end=lambda trainer, _: seen.append(dict(trainer.callback_metrics)))
    probe = LoggedMetric(tiny_model("gpt2"), data.demonstrations)
    trainer = make_trainer(KVFinetuning(RATE), watcher, logger=logger, log_every_n_steps=1)
    trainer.fit(probe, datamodule=data)
    trainer.validate(probe, datamodule=data, verbose=False)
    assert probe.comparison is not None
    share = float(probe.comparison.rec2ftp.value)
    for name in ("rec2ftp", "own/rec2ftp"):
        assert float(seen[-1][name]) == pytest.approx(share, nan_ok=True)
    assert float(seen[-1]["accuracy/icl"]) == pytest.approx(accuracy(probe.predictions, "icl"))
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    losses = [float(line["finetune/loss"]) for line in lines if line.get("finetune/loss")]
    assert losses == pytest.approx(list(probe.finetuned.losses), abs=1e-4)
    assert any(line.get("own/rec2ftp") for line in lines)


STRATEGIES = [
    Case(situation=name, arguments=f"compare --task tiny-sst2 --limit 4 --out out --devices 2 --strategy {name}",
         says=[f"--strategy {name!r}", "auto, ddp", "until the results are saved"])
    for name in ("ddp_spawn", "ddp_fork", "ddp_notebook", "fsdp", "deepspeed", "single", "x" * 70)
]  # fmt: skip


@pytest.mark.parametrize("case", STRATEGIES, ids=lambda case: case.situation)
def test_strategies(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["ddp_spawn", "ddp_notebook"])
def test_processes_that_take_their_results_with_them_are_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="is lost when they end"):
        check_strategy(make_trainer(strategy=name, devices=2))


def test_a_pass_without_queries_is_no_result(plain: ICLProbe, tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    nothing = DataLoader([collate(data.queries).rows(0, 0)], batch_size=None)
    with pytest.raises(ProtocolError, match="No query was looked at"):
        make_trainer().validate(plain, nothing, verbose=False)


def listen(state: list[int], bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    state.append(bucket.index())
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class ListeningDDP(DDPStrategy):
    """DDP that listens for gradients on every device as Lightning's does on CUDA alone."""

    def _register_ddp_hooks(self) -> None:
        self.heard: list[int] = []
        self.model.register_comm_hook(self.heard, listen)


def test_no_gradient_is_sent_between_processes(
    plain: ICLProbe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "0")  # so that what Lightning sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else Lightning gives each process its share of the threads
    data, strategy = tiny_data(tmp_path), ListeningDDP()
    probe = ICLProbe(tiny_model("gpt2"), data.demonstrations)
    try:
        trainer = make_trainer(KVFinetuning(RATE), strategy=strategy, devices=1, use_distributed_sampler=False)
        trainer.fit(probe, datamodule=data)
        assert strategy.heard == []
        assert_same_finetuning(probe, plain)
    finally:
        torch.distributed.destroy_process_group()
