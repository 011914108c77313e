"""Properties of flags and YAML: whatever is written, there is an answer, and it is soon there."""

import string
from pathlib import Path
from typing import Literal

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_icl.cli import COMMANDS, command_parser
from lightning_icl.errors import UserError, on_screen
from lightning_icl.flags import flag_of, read_settings
from lightning_icl.plain_yaml import read_yaml, to_yaml
from lightning_icl.setting_values import expected, from_text, from_yaml

SOON = settings(deadline=None, max_examples=200, derandomize=True)
KINDS = [
    *(int, float, str, bool, int | None, list[str], list[int] | int | str),
    *(int | Literal["published"], float | Literal["published"] | None, Literal["heldout", "paper"]),
]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
YAML_LIKE = st.text(string.ascii_letters[:6] + string.digits[:3] + "-:?[]{}&*!|>'\"%@`#,. \n\t~<=\\", max_size=60)


@SOON
@given(content=st.dictionaries(TEXT, PLAIN, max_size=5))
@example(content={"lr": "1e-3", "name": "yes", "time": "12:30", "day": "2020-01-01", "merge": "<<", "equal": "="})
def test_what_is_written_is_read_as_the_same(tmp_path_factory: object, content: dict[str, object]) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "same.yaml"  # type: ignore[attr-defined]
    path.write_text(to_yaml(content), encoding="utf-8")
    assert read_yaml(path, "file") == content


@SOON
@given(text=YAML_LIKE)
def test_any_text_is_plain_content_or_a_mistake_with_the_files_name(tmp_path_factory: object, text: str) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "any.yaml"  # type: ignore[attr-defined]
    path.write_text(text, encoding="utf-8")
    content, complaint = None, None
    try:
        content = read_yaml(path, "file")
    except UserError as error:
        complaint = str(error)
    if complaint is not None:
        assert str(path) in complaint
        return
    # What is read agrees with YAML's own reader, but for the types that YAML 1.1 gives to plain words.
    assert shape(content) == shape(yaml.load(text, Loader=yaml.BaseLoader))


def shape(content: object) -> object:
    """Lists and keys, values left out."""
    if isinstance(content, dict):
        return sorted(str(shape(value)) for value in content.values())
    return [shape(item) for item in content] if isinstance(content, list) else None


@given(
    kind=st.sampled_from([kind for kind in KINDS if kind is not bool]),
    text=st.text(max_size=30) | st.from_regex(r"[-+0-9.eE_,]+", fullmatch=True),
)
def test_a_flags_text_is_a_value_of_its_type_or_none(kind: object, text: str) -> None:
    value = from_text(kind, text)
    assert value is None or from_yaml(kind, value) == value
    assert expected(kind)


@SOON
@given(kind=st.sampled_from(KINDS), value=PLAIN)
def test_a_keys_value_has_its_type_or_is_none(kind: object, value: object) -> None:
    read = from_yaml(kind, value)
    if kind is bool:
        assert read is (value if isinstance(value, bool) else None)
    elif isinstance(value, bool):
        assert read is None
    elif isinstance(value, str) and read is not None:
        assert kind not in (int, float, bool)


@settings(SOON, max_examples=100)
@given(data=st.data(), command=st.sampled_from(["compare", "validate", "sweep", "dual-form", "pretrain"]))
def test_any_value_of_any_flag_is_taken_or_refused_on_one_screen(data: st.DataObject, command: str) -> None:
    kind = COMMANDS[command].settings
    assert kind is not None
    name = data.draw(st.sampled_from(sorted(kind.__dataclass_fields__)))
    value = data.draw(
        st.text(min_size=1, max_size=300) | st.from_regex(r"[-+]?[0-9]{1,30}(e[0-9]{1,4})?", fullmatch=True)
    )
    needed = ["--out", "model"] if command == "pretrain" else []
    try:
        given_words = command_parser(command).parse_args([*needed, f"{flag_of(name)}={value}"])
        read_settings(kind, given_words)
        message = "taken"
    except UserError as error:
        message = on_screen(str(error))
    assert message.isprintable()
    assert len(message) <= 2000
