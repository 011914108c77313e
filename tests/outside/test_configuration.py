"""Configuration files and task files that are none, or that would take the program down."""

import os
from pathlib import Path

import pytest
from outside_case import Case, check_case

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
RUN = "compare --config run.yaml --out out"
TASK = "compare --task t.yaml --out out"


def run(situation: str, content: str | bytes, *says: str, arguments: str = RUN) -> Case:
    """A configuration file, and what is said about it."""
    return Case(situation=situation, files={"run.yaml": content}, arguments=arguments, says=["run.yaml", *says])


def task(situation: str, content: str | bytes, *says: str) -> Case:
    """A task file, and what is said about it."""
    return Case(situation=situation, files={"t.yaml": content}, arguments=TASK, says=["t.yaml", *says])


def pipe(here: Path) -> None:
    os.mkfifo(here / "run.yaml")
    os.mkfifo(here / "t.yaml")


CASES = [
    run("text for a boolean", 'trust_remote_code: "false"', "trust_remote_code", "true or false, without quotes"),
    run("no as text for a boolean", 'overwrite: "no"', "overwrite", "true or false"),
    run("a number for a boolean", "allow_pickle: 0", "allow_pickle", "true or false"),
    run("nothing for a boolean", "allow_pickle:", "allow_pickle", "true or false"),
    run("a boolean for a count", "shots: true", "shots", "a whole number"),
    run("text for a count", 'shots: "8"', "shots", "a whole number"),
    run("nothing for a count", "shots:", "shots", "a whole number"),
    run("a count of 5,000 digits", "shots: " + "9" * 5000, "line 1", "digits"),
    run("a rate that is no number", "lr: .nan", "lr", "a number, published or auto"),
    run("an infinite rate", "lr: 1e999", "lr", "a number, published or auto"),
    run("a list for a text", "model: [builtin]", "model", "text"),
    run("keys for a model", "model: {name: builtin}", "model", "text"),
    run("a misspelt choice", "probe_token: prompts", "Did you mean 'prompt'"),
    run("an unknown key", "modell: builtin", "'modell'", "Did you mean 'model'"),
    run("a key that stands twice", "shots: 4\nshots: 8", "line 2", "twice"),
    run("a list for keys and values", "- shots", "keys and values"),
    run("an empty file", "", "keys and values"),
    run("aliases that expand without end", BOMB, "line 1", "aliases"),
    run("an alias", "model: &m builtin\ntask: *m", "aliases"),
    run("a tag that runs code", "model: !!python/object/apply:os.system [exit]", "line 1", "tags"),
    run("a tag of plain YAML", "model: !!str 5", "tags"),
    run("lists without end", "model: " + "[" * 50_000, "levels"),
    run("a tab for indentation", "model:\n\tx: 1", "line 2"),
    run("two documents", "model: builtin\n---\nmodel: builtin", "single document"),
    run("bytes of a program", b"\x7fELF\x00\x01", "not text"),
    run("text in another encoding", "model: \u00fc".encode("latin-1"), "not text in UTF-8"),
    run("a control character", b"model: \x1b[31m", "character 8"),
    run("half a character", 'model: "\\ud800"', "no character"),
    run("the character 0", 'model: "\\0"', "no character"),
    run("20 MB", "model: " + "x" * 20_000_000, "larger than"),
    Case(
        situation="a rate of zero in the file",
        files={"run.yaml": "lr: 0"},
        arguments=RUN,
        says=["--lr 0", "positive"],
    ),
    Case(
        situation="a password file", arguments="compare --config /etc/passwd", says=["/etc/passwd", "keys and values"]
    ),
    Case(situation="a file that is not there", arguments="compare --config no.yaml", says=["no.yaml", "No such file"]),
    Case(situation="a folder for a file", arguments="compare --config .", says=["folder or a device"]),
    Case(situation="a device for a file", arguments="compare --config /dev/zero", says=["folder or a device"]),
    Case(situation="a pipe for a file", prepare=pipe, arguments=RUN, says=["run.yaml", "folder or a device"]),
    Case(situation="a pipe for a task", prepare=pipe, arguments=TASK, says=["t.yaml", "folder or a device"]),
    Case(
        situation="a flag before the file that says otherwise",
        files={"run.yaml": "task: cb\nmodel: builtin\nlr: 0.1\n"},
        arguments="compare --task sst-2 --config run.yaml",
        says=["'sst-2' is not known"],
    ),
    Case(
        situation="a switch turned off against the file",
        files={"run.yaml": "show_prompt: true\nshots: 0\n"},
        arguments="compare --no-show-prompt --config run.yaml --shots 2 --task no-such-task",
        says=["no-such-task"],
    ),
    Case(
        situation="a number in the form 1e-3",
        files={"run.yaml": "lr: 1e-3\nprecision: 32\ntask: tiny-cb\nshots: 2\nlimit: 2\nshow_prompt: yes\n"},
        arguments="compare --config run.yaml",
        says=["Zero-shot"],
        status=0,
    ),
    task("a task with aliases", "template: &t '{text}'\nname: *t", "aliases"),
    task("a task of aliases without end", BOMB, "aliases"),
    task("a task with a tag", "template: !!binary aGVsbG8=", "tags"),
    task("a task with a bad date", "template: '{text}'\nanswers: [2020-13-45, 1e-3]", "answers"),
    task("a task of a huge template", "template: " + "x" * 1_000_000, "larger than"),
    task("a task that is a list", "- a", "keys and values"),
    task("a task with a key of lists", "? [a, b]\n: c", "key"),
    task("a task with a rate without end", "template: '{text}'\nanswers: [a, b]\nlearning_rate: .inf", "learning_rate"),
    task("a task with a rate of 400 digits", "learning_rate: " + "9" * 400, "digits"),
    task("a task in another encoding", b"template: \xff\xfe", "UTF-8"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_configuration(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = check_case(case, tmp_path, monkeypatch, capsys)
    assert "root:" not in outcome.err + outcome.out  # what is in a file that is no configuration is not shown
