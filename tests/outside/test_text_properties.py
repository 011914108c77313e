"""Names, labels, templates and rows of any text: right, or refused as a user's mistake, never anything else."""

import csv
import io
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, tokenizer_of

from lightning_icl.data._layout import plain_layout
from lightning_icl.errors import TaskError
from lightning_icl.file_names import folder_name
from lightning_icl.tasks._files import read_rows
from lightning_icl.tasks._values import label_number
from lightning_icl.tasks.rows import load_rows
from lightning_icl.tasks.task import FileSource, Task
from lightning_icl.tasks.template import fill_template, template_fields

TEXT = st.text(max_size=12)  # any characters, control and unassigned ones included
WORDS = st.lists(
    st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5), min_size=2, max_size=4, unique=True
)
FIELD = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    str.strip
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
SYNTAX = st.text(st.sampled_from('{}[]",:\r\n ab1\x00é\ufeff'), max_size=40)
SPELT = st.lists(st.sampled_from(["<s>", "</s>", "<|im_end|>", " ", "a", "▁", "Ġ", "\n"]), max_size=6)
SIGNS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=4)
quick = settings(max_examples=60, deadline=None)


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@quick
@given(
    parts=st.lists(st.tuples(st.text(max_size=6), FIELD), min_size=1, max_size=4),
    end=st.text(max_size=6),
    data=st.data(),
)
def test_a_template_is_its_text_with_values_in_their_places(
    parts: list[tuple[str, str]], end: str, data: st.DataObject
) -> None:
    row = {
        name: data.draw(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
        for _, name in parts
    }
    template = "".join(f"{escaped(text)}{{{name}}}" for text, name in parts) + escaped(end)
    assert list(template_fields(template)) == list(dict.fromkeys(name for _, name in parts))
    assert fill_template(template, row) == "".join(text + row[name] for text, name in parts) + end


@quick
@given(template=st.text(st.sampled_from("{}ab \n.[!:"), max_size=12))
def test_no_field_is_ever_left_in_a_prompt(template: str) -> None:
    """Against a reading letter by letter: a doubled brace is text, what stands between single ones is a field."""
    try:
        fields = template_fields(template)
    except TaskError:
        return
    filled = fill_template(template, dict.fromkeys(fields, "#"))
    expected, rest = "", template
    while rest:
        if rest[:2] in ("{{", "}}"):
            expected, rest = expected + rest[0], rest[2:]
        elif rest[0] == "{":
            name, _, rest = rest[1:].partition("}")
            assert name in fields
            expected += "#"
        else:
            assert rest[0] != "}"
            expected, rest = expected + rest[0], rest[1:]
    assert filled == expected


@quick
@given(value=ANYTHING, names=WORDS | st.just([]), count=st.integers(2, 4))
def test_any_label_is_a_number_in_range_or_refused(value: object, names: list[str], count: int) -> None:
    try:
        number = label_number(value, names, len(names) or count)
    except TaskError as error:
        message = str(error)
        assert len(message) < 600
        return
    assert 0 <= number < (len(names) or count)
    if not names:
        assert float(value) == number  # type: ignore[arg-type]


@quick
@given(names=st.permutations(range(5)))
def test_numbers_are_names_first(names: list[int]) -> None:
    """Whatever order numbers have as names: label n is the place where n stands, from any kind of file."""
    for place, name in enumerate(names):
        for written in (name, str(name), float(name), f"{name}.0", f" {name} "):
            assert label_number(written, [str(other) for other in names], 5) == place


@quick
@given(rows=st.lists(st.fixed_dictionaries({"text": ANYTHING, "label": ANYTHING}), max_size=4), broken=st.booleans())
def test_any_rows_are_read_or_refused_with_their_file(rows: list[dict[str, object]], broken: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        path.write_text(lines[:-3] if broken else lines)
        task = Task(
            name="own",
            templates={"program": "{text}:"},
            answers=("a", "b"),
            source=FileSource(train=path, validation=path),
        )
        try:
            loaded = load_rows(task)
        except TaskError as error:
            message = str(error)
            assert "rows.jsonl" in message
            return
        assert [row.label in (0, 1) for row in loaded.train] == [True] * len(rows)
        for row in loaded.train:
            assert "\n" not in task.prompt(row.fields)
            task.prompt(row.fields).encode()


@quick
@given(
    table=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
            st.sampled_from(["x", "1", "0", "True", "false"]),
        ),
        min_size=1,
        max_size=5,
    ),
    names=st.sampled_from([(), ("0", "1"), ("1", "0"), ("x", "1"), ("true", "false"), ("False", "True")]),
)
def test_json_lines_and_csv_of_one_table_agree(table: list[tuple[str, str]], names: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcomes: list[object] = []
        for suffix in ("jsonl", "csv"):
            path = Path(folder) / f"rows.{suffix}"
            if suffix == "jsonl":
                typed = {"1": 1, "0": 0, "True": True, "false": False}
                made = [{"text": text, "label": typed.get(label, label)} for text, label in table]
                path.write_text("".join(json.dumps(row) + "\n" for row in made))
            else:
                buffer = io.StringIO(newline="")
                writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
                writer.writerows([("text", "label"), *table])
                path.write_bytes(buffer.getvalue().encode())
            source = FileSource(train=path, validation=path)
            task = Task(
                name="own", templates={"program": "{text}:"}, answers=("a", "b"), source=source, label_names=names
            )
            try:
                outcomes.append([(task.prompt(row.fields), row.label) for row in load_rows(task).train])
            except TaskError:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1]


@quick
@given(text=st.text(st.characters(), max_size=300))
def test_any_text_makes_one_component_of_a_path(text: str) -> None:
    name = folder_name(text)
    assert name
    assert Path(name).name == name
    assert name.isprintable()
    assert len(name.encode()) <= 255


@quick
@given(
    content=st.binary(max_size=60) | SYNTAX.map(str.encode),
    suffix=st.sampled_from(["jsonl", "csv", "parquet"]),
)
def test_any_file_is_rows_or_refused_with_its_name(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{suffix}"
        path.write_bytes(content)
        try:
            rows = list(read_rows(path))
        except TaskError as error:
            message = str(error)
            assert path.name in message
            return
        assert all(path.name in place and isinstance(row, dict) for place, row in rows)


@quick
@given(
    kind=st.sampled_from(sorted(KINDS)),
    text=st.text(max_size=20) | SPELT.map("".join),
    answers=st.lists(SIGNS, min_size=2, max_size=3),
)
def test_any_prompt_and_answers_are_the_tokens_of_their_text_or_refused(
    kind: str, text: str, answers: list[str]
) -> None:
    layout = plain_layout(tokenizer_of(kind))
    prompt = f"{text} Label:"
    try:
        encoded = layout.encode(prompt, answers)
    except TaskError:
        return
    assert not {layout.tokenizer.bos_token_id, layout.tokenizer.eos_token_id} & set(encoded.prompt)
    for word, ids in zip(answers, encoded.answers, strict=True):
        if word not in encoded.joined:
            assert encoded.prompt + ids == layout.read(f"{prompt} {word}")
