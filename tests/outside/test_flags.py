"""Mistakes in flags."""

from pathlib import Path

import pytest
from outside_case import Case, check_case

LONG = "a" * 5000

CASES = [
    Case(situation="a misspelt flag", arguments="compare --shot 3", says=["Did you mean '--shots'"]),
    Case(situation="an unknown task", arguments="compare --task sst-2", says=["Did you mean 'sst2'"]),
    Case(situation="an unknown command", arguments="compre", says=["Did you mean 'compare'"]),
    Case(situation="a flag before the command", arguments="--task cb compare", says=["before the command", "compare"]),
    Case(situation="a word without a flag", arguments="compare cb", says=["cb", "--task"]),
    Case(situation="a flag without its value", arguments="compare --lr", says=["--lr needs a value"]),
    Case(situation="a value that begins with a dash", arguments="compare --lr -1e-3", says=["--lr=VALUE"]),
    Case(situation="a value for a switch", arguments="compare --overwrite=false", says=["--overwrite takes no value"]),
    Case(situation="text for a count", arguments="compare --shots many", says=["--shots 'many'", "a whole number"]),
    Case(situation="a fraction for a count", arguments="compare --limit 1.5", says=["--limit", "a whole number"]),
    Case(situation="a count of 5,000 digits", arguments="compare --limit " + "9" * 5000, says=["a whole number"]),
    Case(situation="digits of another script", arguments="compare --shots ٣", says=["--shots", "a whole number"]),
    Case(situation="an empty value", arguments="compare --data ''", says=["--data ''"]),
    Case(situation="an empty model", arguments="compare --model ''", says=["--model ''"]),
    Case(situation="a misspelt choice", arguments="compare --probe-token prompts", says=["Did you mean 'prompt'"]),
    Case(situation="a misspelt table", arguments="compare --tables accurac", says=["--tables", "rec2ftp"]),
    Case(situation="a rate that is no number", arguments="compare --lr nan", says=["--lr 'nan'", "a number"]),
    Case(situation="an infinite rate", arguments="compare --lr inf", says=["--lr 'inf'", "a number"]),
    Case(situation="a rate beyond every number", arguments="compare --lr 1e999", says=["--lr '1e999'", "a number"]),
    Case(situation="a rate of zero", arguments="compare --lr 0", says=["--lr 0", "positive"]),
    Case(situation="a negative rate", arguments="compare --lr=-1e-3", says=["--lr -0.001", "positive"]),
    Case(situation="rates of a sweep as text", arguments="sweep --lrs x", says=["--lrs 'x'", "numbers"]),
    Case(situation="a device that is none", arguments="compare --accelerator gpuu", says=["Did you mean 'gpu'"]),
    Case(situation="a device that is not here", arguments="fit --accelerator tpu", says=["--accelerator tpu"]),
    Case(situation="no devices", arguments="compare --devices 0", says=["--devices 0", "how many"]),
    Case(situation="devices in words", arguments="compare --devices two", says=["--devices two", "how many"]),
    Case(situation="more processes than cores", arguments="compare --devices 999", says=["--devices 999", "at most"]),
    Case(situation="more devices than any machine has", arguments="compare --devices 99999", says=["--devices 99999"]),
    Case(situation="machines that nobody started", arguments="compare --num-nodes 3", says=["torchrun", "MASTER_ADDR"]),
    Case(situation="a strategy that is none", arguments="compare --strategy xyz", says=["--strategy", "xyz"]),
    Case(situation="a precision that is none", arguments="sweep --precision 7", says=["--precision '7'", "32-true"]),
    Case(situation="a seed below zero", arguments="compare --seed -1", says=["--seed -1", "from 0 to 4,294,967,295"]),
    Case(situation="a seed beyond NumPy's", arguments="sweep --seeds 1,4294967296", says=["--seeds 4294967296"]),
    Case(situation="a seed twice", arguments="sweep --seeds 1,1", says=["--seeds", "none twice"]),
    Case(situation="a part that is none", arguments="sweep --part 5/4", says=["--part '5/4'", "I/N"]),
    Case(situation="a layer that is none", arguments="dual-form --layers 0-999999999", says=["0 to 3"]),
    Case(
        situation="layers in words", arguments="dual-form --layers all,1", says=["--layers", "ranges from low to high"]
    ),
    Case(situation="weights in float16", arguments="pretrain --out m --precision 16-true", says=["NaN", "bf16-mixed"]),
    Case(situation="a vocabulary below the bytes", arguments="pretrain --out m --vocabulary 9", says=["at least 258"]),
    Case(situation="a training of no rate", arguments="pretrain --out m --learning-rate 0", says=["--learning-rate 0"]),
    Case(situation="a negative clip", arguments="pretrain --out m --clip=-1", says=["clip = -1", "at least 0"]),
    Case(situation="a width beyond all", arguments="pretrain --out m --width 99999999", says=["width", "at most"]),
    Case(situation="a training's seed below zero", arguments="pretrain --out m --seed -1", says=["--seed -1"]),
    Case(situation="a training on no device", arguments="pretrain --out m --accelerator tpu", says=["tpu"]),
    Case(situation="a logger that is not installed", arguments="compare --logger wandb", says=["pip install wandb"]),
    Case(situation="a logger that is none", arguments="compare --logger comet", says=["--logger", "tensorboard"]),
    Case(situation="an overlay that is not there", arguments="validate --overlay no/fit", says=["--overlay 'no/fit'"]),
    Case(situation="a task of 5,000 letters", arguments=f"compare --task {LONG}", says=["aaa", "Known: "]),
    Case(situation="a model of 5,000 letters", arguments=f"compare --model {LONG}", says=["no file has such a name"]),
    Case(situation="data of 5,000 letters", arguments=f"compare --data {LONG}", says=["no file has such a name"]),
    Case(situation="a run of 5,000 letters", arguments=f"report {LONG}", says=["no file has such a name"]),
    Case(situation="a model of nobody's home", arguments="compare --model ~nouser/m", says=["--model", "no such user"]),
    Case(situation="data of nobody's home", arguments="compare --data ~nouser/d", says=["--data", "no such user"]),
    Case(situation="a task of nobody's home", arguments="compare --task ~nouser/t.yaml", says=["no such user"]),
    Case(situation="a report of nobody's home", arguments="report ~nouser/run", says=["no such user"]),
    Case(situation="nobody's tokenizer", arguments="pretrain --out m --tokenizer ~nouser/t", says=["no such user"]),
    Case(situation="text of nobody's", arguments="pretrain --out m --text ~nouser/t", says=["no such user"]),
    Case(situation="YAML for a model", arguments="compare --model '{a: &a [x, *a]}'", says=["does not allow"]),
    Case(situation="a command that takes no flags", arguments="tasks --limit 3", says=["unknown flag --limit"]),
    Case(situation="a report of nothing", arguments="report", says=["RUN is missing"]),
    Case(situation="a training without a folder", arguments="pretrain", says=["--out is needed"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_flags(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)
