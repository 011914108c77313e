"""Templates, answers and label names of a task file: what the model would read must be what their author meant."""

import json
from pathlib import Path

import pytest
from outside_case import Case, check_case

SHOW = "compare --task own.yaml --shots 2 --show-prompt"
ROW = {"text": "fine", "review-text": "hm", "my text": "well", "größe": "xl", "0": "zero", "meta": {"title": "deep"}}
ROWS = "".join(json.dumps({**ROW, "label": number % 2}) + "\n" for number in range(4))


def own(template: str, more: str = "answers: ['no', so]") -> dict[str, str | bytes]:
    content = f"template: {json.dumps(template)}\n{more}\nrows: {{train: rows.jsonl, validation: rows.jsonl}}\n"
    return {"own.yaml": content, "rows.jsonl": ROWS}


FIELD = "lacks the field"
REFUSED = [
    ("a field with a hyphen that rows lack", own("{text} {te-xt}:"), [FIELD, "'te-xt'", "character 8", "mean 'text'"]),
    ("a field with a blank that rows lack", own("{the text}:"), [FIELD, "'the text'", "character 1"]),
    ("blanks around a field", own("Ticket: { text }:"), [FIELD, "' text '", "character 9", "Did you mean 'text'"]),
    ("a part of a field", own("{meta.title}:"), [FIELD, "'meta.title'"]),
    ("an item of a field", own("{text[0]}:"), [FIELD, "'text[0]'"]),
    ("a field by number that rows lack", own("{1}:"), [FIELD, "'1'"]),
    ("a field in other letters", own("{größen}:"), [FIELD, "'größen'", "Did you mean 'größe'"]),
    ("a field in other case", own("{Text}:"), [FIELD, "'Text'", "Did you mean 'text'"]),
    ("a conversion", own("{text!r}:"), [FIELD, "'text!r'"]),
    ("a format", own("{text:>10}:"), [FIELD, "'text:>10'"]),
    ("a record as text", own("{meta}:"), ["rows.jsonl, line 1", "'meta'", "neither text"]),
    ("braces with nothing in them", own("{text} {}:"), ["own.yaml", "character 8", "{{}}"]),
    ("an open brace", own("{text:"), ["own.yaml", "'{' at character 1", "{{"]),
    ("an open brace before a field", own("{ {text}:"), ["own.yaml", "'{' at character 1"]),
    ("a closing brace", own("{text}}:"), ["own.yaml", "'}' at character 7", "}}"]),
    ("JSON around a field", own('{"text": "{text}"}:'), ["own.yaml", "character 1"]),
    ("a special token in the template", own("{text}</s>:"), ["special token '</s>'", "--chat", "--separator"]),
    ("a template without a field", own("text:"), ["own.yaml", "at least one {field}"]),
    ("a template whose only braces are text", own("{{text}}:"), ["own.yaml", "at least one {field}"]),
    ("a blank at the template's end", own("{text} Label: "), ["own.yaml", "ends in a blank", "|-"]),
    ("a line break at the template's end", own("{text}\nLabel:\n"), ["own.yaml", "line break", "|-"]),
    ("a field name of 5,000 letters", own("{" + "a" * 5000 + "}:"), [FIELD, "…"]),
    ("an answer that begins with a blank", own("{text}:", "answers: [' no', so]"), ["own.yaml", "' no'", "blank"]),
    ("an answer that ends in a blank", own("{text}:", "answers: ['no ', so]"), ["own.yaml", "'no '", "blank"]),
    ("an answer of two lines", own("{text}:", 'answers: ["a\\nb", so]'), ["own.yaml", "line break"]),
    ("an answer twice", own("{text}:", "answers: [so, so]"), ["own.yaml", "twice", "answers"]),
    ("an answer that YAML reads as false", own("{text}:", "answers: [no, so]"), ["own.yaml", "in quotes"]),
    ("a label name twice", own("{text}:", "answers: ['no', so]\nlabel_names: [a, a]"), ["own.yaml", "label names"]),
    ("more label names than answers", own("{text}:", "answers: [a, b]\nlabel_names: [x, y, z]"), ["2 answers but 3"]),
    ("fewer label names than answers", own("{text}:", "answers: [a, b]\nlabel_names: [x]"), ["2 answers but 1"]),
    ("numbers where names are", own("{text}:", "answers: [a, b]\nlabel_names: [x, y]"), ["line 1", "label 0", "x, y"]),
    ("the label in another field", own("{text}:", "answers: [a, b]\nlabel_field: labels"), ["mean 'label'"]),
    ("another variant that is broken", {**own("{text}:"), "own.yaml": (
        "templates: {a: '{text}:', b: '{text'}\nanswers: [a, b]\nrows: {train: rows.jsonl, validation: rows.jsonl}\n"
    )}, ["own.yaml", "template 'b'"]),
    ("rows without a file", {"own.yaml": "template: '{a}'\nanswers: [a, b]\nrows: {train: , validation: x.csv}"},
        ["own.yaml", "`rows` must have the keys"]),
    ("rows by number", {"own.yaml": "template: '{a}'\nanswers: [a, b]\nrows: {train: 1, validation: x.csv}"},
        ["own.yaml", "`rows: train` must be a text"]),
    ("a label field of nothing", own("{text}:", "answers: [a, b]\nlabel_field:"), ["own.yaml", "`label_field`"]),
    ("a template that is a number", {**own("{text}:"), "own.yaml": "template: 3\nanswers: [a, b]"}, ["own.yaml", "3"]),
]  # fmt: skip

FILLED = [
    ("a field with a hyphen", "{review-text}:", "hm:"),
    ("a field with a blank", "{my text}:", "well:"),
    ("a field in letters of another language", "{größe}:", "xl:"),
    ("a field that is a number", "{0}:", "zero:"),
    ("a field twice", "{text}, {text}:", "fine, fine:"),
    ("braces as text", "{{text}} {text}:", "{text} fine:"),
    ("braces around a field", "{{{text}}}:", "{fine}:"),
    ("JSON around a field with doubled braces", '{{"a": "{text}"}}:', '{"a": "fine"}:'),
]

CASES = [Case(situation=name, arguments=SHOW, files=files, says=says) for name, files, says in REFUSED]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.situation)
def test_templates(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(("situation", "template", "prompt"), FILLED, ids=[name for name, *_ in FILLED])
def test_prompts(
    situation: str,
    template: str,
    prompt: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = check_case(
        Case(situation=situation, arguments=SHOW, files=own(template), status=0), tmp_path, monkeypatch, capsys
    )
    zero_shot = outcome.out.split("Zero-shot")[1].splitlines()[1]
    assert zero_shot.replace("|", "") == f"<s>{prompt}"


SEPARATORS = [
    Case(
        situation="an empty separator",
        arguments=f"{SHOW} --separator ''",
        files=own("{text}:"),
        says=["--separator ''"],
    ),
    Case(
        situation="a separator of one's own",
        arguments=f"{SHOW} --separator ' ###'",
        files=own("{text}:"),
        status=0,
        says=["Separator ' ' (222) '#' (4)"],
    ),
    Case(situation="a newline", arguments=f"{SHOW} --separator newline", files=own("{text}:"), status=0,
         says=["Separator newline '\\n' ("]),
    Case(situation="the built-in model's own", arguments=SHOW, files=own("{text}:"), status=0,
         says=["Separator eos '</s>' (1)"]),
]  # fmt: skip


@pytest.mark.parametrize("case", SEPARATORS, ids=lambda case: case.situation)
def test_separators(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)


CHATS = [
    Case(
        situation="a chat with a model that has no chat template",
        arguments=f"{SHOW} --chat",
        files=own("{text}:"),
        says=["--chat", "no chat template"],
    ),
    Case(
        situation="a chat with a separator",
        arguments=f"{SHOW} --chat --separator eos",
        files=own("{text}:"),
        says=["--chat --separator 'eos'", "Leave one out"],
    ),
]


@pytest.mark.parametrize("case", CHATS, ids=lambda case: case.situation)
def test_chats(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    check_case(case, tmp_path, monkeypatch, capsys)
