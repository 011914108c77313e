"""Text to train on: documents of local files or of the hub, found and checked before anything is trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_icl.errors import TextError
from lightning_icl.file_names import input_path

_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Text:
    """Where text is: files, a document each, or a field of a data set of the hub, a document a row."""

    files: tuple[Path, ...] = ()
    """Local files, in the order of their names."""
    hub: str | None = None
    """Name of a data set on the hub."""
    config: str | None = None
    """Configuration inside it."""
    field: str = "text"
    """Field with the text."""
    split: str = "train"
    """Split of it."""

    @property
    def record(self) -> list[str]:
        """What it consists of, in words, to notice when it changes."""
        if self.hub is not None:
            return [":".join(("hub", self.hub, self.config or "", self.field, self.split))]
        # Sizes stand for content here: reading a corpus again would take minutes.
        return [f"{path} ({path.stat().st_size} bytes)" for path in self.files]

    def documents(self) -> Iterator[Iterator[str]]:
        """Each document as pieces that end where lines end, so that none has to be in memory whole.

        Raises:
            TextError: a file is no UTF-8, or the hub cannot be reached.
        """
        return map(_pieces, self.files) if self.hub is None else self._hub_documents()

    def _hub_documents(self) -> Iterator[Iterator[str]]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.hub, self.config, split=self.split)
        except Exception as error:  # datasets and its network layers fail in many ways of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TextError(
                f"The text {self.record[0]!r} cannot be loaded from the Hugging Face hub: {reason[:300]} Check the "
                "name and the network, or give local files."
            ) from error
        if self.field not in rows.column_names:
            raise TextError(
                f"The data set {self.hub!r} has no field {self.field!r}. It has: {', '.join(rows.column_names)}."
            )
        for row in rows:
            if row[self.field]:
                yield iter([str(row[self.field])])


def find_text(text: str, setting: str, split: str = "train") -> Text:
    """What a setting names.

    Args:
        text: files and folders with commas between them, or `hub:NAME:CONFIG:FIELD`.
        setting: which setting, for messages.
        split: of a data set on the hub.

    Raises:
        TextError: it names nothing that can be read.
    """
    if text.startswith("hub:"):
        # Padded with empty parts, so that short forms unpack as well.
        name, config, field, *more = [*text.split(":")[1:], "", ""]
        if not name or any(more):
            raise TextError(f"{setting} = {text!r}: give hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG:FIELD.")
        return Text(hub=name, config=config or None, field=field or "text", split=split)
    files: list[Path] = []
    for part in filter(None, map(str.strip, text.split(","))):
        path = input_path(part, setting)
        matches = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not matches:
            raise TextError(f"{setting}: the folder {part!r} holds no .txt file.")
        if not matches[0].is_file():
            raise TextError(f"{setting}: there is no file or folder {part!r}.")
        files += matches
    if not any(path.stat().st_size for path in files):
        raise TextError(f"{setting} = {text!r}: there is no text in it.")
    return Text(files=tuple(files))


def _pieces(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            # Whole lines: a piece that ended inside a word would be encoded as two.
            while lines := file.readlines(_PIECE):
                yield "".join(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"The text file {str(path)!r} cannot be read as UTF-8: {error}") from error
