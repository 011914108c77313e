"""Multiple choice: tasks whose rows bring their own options, often of many tokens (ARC-Easy, PIQA).

An option is scored like an answer word, by the mean log-probability of its tokens after the prompt (definitions,
section 1), so that long options are at no disadvantage. A demonstration shows its right option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_icl.errors import TaskError, did_you_mean, shown
from lightning_icl.tasks._values import is_missing, label_number, text_of
from lightning_icl.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """A task whose rows bring their own options. An example is `prompt + " " + right option`.

    Rows may have different numbers of options. An answer's number is its place among the row's options.

    >>> task = MultipleChoice(
    ...     name="arc_easy",
    ...     templates={"program": "Question: {question} Answer:"},
    ...     option_fields=("choices.text",),
    ...     option_labels="choices.label",
    ...     label_field="answerKey",
    ... )
    >>> row = {"question": "?", "choices": {"text": ["air", "the sun"], "label": ["A", "B"]}, "answerKey": "B"}
    >>> task.options(row), task.gold(row, task.label_field)
    (('air', 'the sun'), 1)
    """

    answers: tuple[str, ...] = field(default=(), init=False)
    """None that all rows share."""
    option_fields: tuple[str, ...]
    """Where a row's options are: one field that holds a list, or one field for each option; `a.b` is b inside of a."""
    option_labels: str = ""
    """Field with what the row's options are called, such as A, B, C, where its label is one of these names."""

    @property
    def choices(self) -> str:
        """The fields that hold the options."""
        return f"multiple choice: {', '.join(self.option_fields)}"

    def options(self, row: Mapping[str, object]) -> tuple[str, ...]:
        """The texts of a row's options, each on one line.

        Raises:
            TaskError: there are fewer than two, one is empty, or two are the same.
        """
        # One field with a list, or one field per option: data sets do either.
        if len(self.option_fields) == 1:
            values = _listed(row, self.option_fields[0])
        else:
            values = [_inside(row, name) for name in self.option_fields]
            # Shorter rows of a table end in empty cells, which are no options.
            while values and is_missing(values[-1]):
                values.pop()
        if len(values) < 2:
            raise TaskError(f"the row has {len(values)} options in {self.choices}; two or more are needed.")
        texts = tuple(_option(number, value) for number, value in enumerate(values))
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise TaskError(
                f"the option {shown(twice)} occurs twice, so no score can tell them apart. Leave the row out."
            )
        return texts

    def gold(self, row: Mapping[str, object], label_field: str) -> int:
        """Number of the right option.

        Raises:
            TaskError: the label names none of the options.
        """
        count = len(self.options(row))
        # Without names for its options, a row's label is the number of the right one.
        if not self.option_labels:
            return label_number(row[label_field], self.label_names, count)
        names = [text_of(name) for name in _listed(row, self.option_labels)]
        if len(names) != count:
            raise TaskError(f"there are {count} options, but {len(names)} labels in {self.option_labels!r}.")
        # `index` below would silently take the first of two.
        if len(set(names)) < len(names):
            raise TaskError(f"{self.option_labels!r} holds a label twice: {', '.join(names)}.")
        return label_number(row[label_field], names, count)


def _option(number: int, value: object) -> str:
    if is_missing(value):
        raise TaskError(f"option {number} (counted from 0) is empty.")
    # Blanks around an option would change its tokens, and so its score.
    return text_of(value).strip()


def _inside(row: object, path: str) -> object:
    """The value at a path of fields; fields of a list of records make a list.

    Raises:
        TaskError: the path leads nowhere.
    """
    value = row
    for name in path.split("."):
        # A list of records, as of a nested JSON column: the field of each.
        if isinstance(value, list):
            value = [_inside(item, name) for item in value]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            advice = f" {did_you_mean(name, map(str, value))}" if isinstance(value, Mapping) else ""
            raise TaskError(f"the row lacks the field {path!r}, where its options are.{advice}")
    return value


def _listed(row: Mapping[str, object], path: str) -> Sequence[object]:
    value = _inside(row, path)
    if not isinstance(value, list | tuple):
        raise TaskError(f"the field {path!r} must hold a list with one entry for each option, not {shown(value)}.")
    return list(value)
