"""A folder in use by one process, and the hidden place in it where outputs are made before they appear.

    FOLDER/.lightning-icl-NAME.part/lock    held as long as the process lives
                                   /new/…   what is being made
                                   /old/…   what stood in its place, where the system cannot exchange in one step

Nothing reads the hidden place. The next start puts back what a killed process had moved, and removes the rest.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lightning_icl.errors import InUseError, OutputError
from lightning_icl.saving._exchange import put_in_place
from lightning_icl.saving.record import (
    RECORD,
    check_own_files,
    check_replaceable,
    digest,
    files_in,
    is_own,
    read_record,
    record_text,
)

_LOCK, _NEW, _OLD = "lock", "new", "old"
_TRIES = 100  # to make a hidden place that others keep removing
_MOVE = "Move it away, or choose another folder."


@dataclass(frozen=True)
class Workspace:
    """A folder that this process alone writes into."""

    folder: Path
    """Where outputs appear."""
    staging: Path
    """The hidden place."""

    @contextmanager
    def replacing(self, target: Path) -> Iterator[Path]:
        """A hidden folder to write into, which becomes `target` when the block ends without an error.

        Args:
            target: below the folder in use; what this program wrote there before is replaced.

        Raises:
            OutputError: the disk is full or cannot be written, or `target` holds what is not this program's.
        """
        with self._part(target) as part:
            yield part
            check_replaceable(target, _MOVE)
            # The record comes with the folder: from its first moment it is known to be ours.
            _write(part / RECORD, record_text(_digests(part)))
            _sync(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            put_in_place(part, target, self.staging / _OLD / target.relative_to(self.folder))
            # A rename is on disk only once its folder is.
            _sync_folder(target.parent)

    @contextmanager
    def adding(self) -> Iterator[Path]:
        """A hidden folder to write files into, which move to the folder in use together when the block ends well.

        Raises:
            OutputError: one would replace what is not this program's, or the disk is full or cannot be written.
        """
        with self._part(self.folder / "files") as part:
            yield part
            new_files, record = _digests(part), read_record(self.folder)
            # The record goes before the files: a process killed in between leaves old and new ones known alike.
            both = {
                name: [*_standing(self.folder / name, record.get(name, [])), *digests]
                for name, digests in new_files.items()
            }
            # Checked with old and new hashes: a killed run may have put some of the files there already.
            check_own_files(self.folder, new_files, f"Nothing was written. {_MOVE}", known=both)
            _sync(part)
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.staging / RECORD, record_text({**record, **both}))
            os.replace(self.staging / RECORD, self.folder / RECORD)
            for name in new_files:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(part / name, self.folder / name)

    @contextmanager
    def file(self, path: Path) -> Iterator[Path]:
        """A hidden file to write, which becomes `path` when the block ends without an error.

        Raises:
            OutputError: it cannot be written.
        """
        with self._part(path) as part:
            yield part / path.name
            _sync(part)
            os.replace(part / path.name, path)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is as this program wrote it."""
        if path.is_file() and is_own(path, path.parent, read_record(path.parent)):
            path.unlink()

    @contextmanager
    def _part(self, target: Path) -> Iterator[Path]:
        # Staged at the same path below the hidden folder, so that two targets never meet.
        part = self.staging / _NEW / target.relative_to(self.folder)
        try:
            # A killed run may have left something half-written here.
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
        except OSError as error:
            raise OutputError(
                f"{str(target)!r} cannot be written: {error.strerror or error}. Nothing unfinished was left there."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def held(folder: Path, name: str = "run", wait: float = 0.0) -> Iterator[Workspace]:
    """Use a folder alone; it is made where it does not exist, and removed again if it stays empty.

    Args:
        folder: the folder.
        name: of the use; uses of different names do not exclude each other.
        wait: seconds to wait for another process that has it.

    Raises:
        InUseError: another process uses it.
        OutputError: it cannot be written.
    """
    # Remembered before they are made, to be removed again if nothing was written.
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    staging = folder / f".lightning-icl-{_short(name)}.part"
    try:
        lock = _locked(staging, wait)
        try:
            # Hidden places of killed processes too, which nobody else would clean.
            for other in folder.glob(".lightning-icl-*.part"):
                _clean(other, own=other == staging)
            yield Workspace(folder=folder, staging=staging)
        finally:
            _empty(staging)
            lock.release()
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


def _short(name: str) -> str:
    """A name as it is, or its hash where it would make the hidden place's too long."""
    return name if len(name.encode()) <= 200 else hashlib.sha256(name.encode()).hexdigest()


def _locked(staging: Path, wait: float) -> BaseFileLock:
    """The lock of a hidden place, which is made."""
    folder = staging.parent
    # The lock lies inside the hidden place and is gone with it.
    lock = FileLock(staging / _LOCK, timeout=wait)
    try:
        _acquire(lock, staging)
    except Timeout as error:
        raise InUseError(
            f"{str(folder)!r} is in use by another lightning-icl. Wait until it has ended, or give another folder."
        ) from error
    except OSError as error:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{str(folder)!r} is a file. Give a folder.") from error
        raise OutputError(
            f"{str(folder)!r} cannot be written: {error.strerror or error}. Give another folder."
        ) from error
    return lock


def _acquire(lock: BaseFileLock, staging: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            staging.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            return
        # Both also where another process removes its place, or the folder, between two of these steps.
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise


def _clean(staging: Path, own: bool) -> None:
    """Put back what a killed process had moved, and remove what it had not finished; leave a living one's alone."""
    lock = FileLock(staging / _LOCK, timeout=0)
    with suppress(OSError, Timeout):  # removed by its owner meanwhile, or in use
        # One's own place is locked already.
        if not own:
            lock.acquire()
        # Where a record lies there was a finished folder: put it back unless a new one has taken its place.
        for record in sorted((staging / _OLD).rglob(RECORD)):
            target = staging.parent / record.parent.relative_to(staging / _OLD)
            if not target.exists():
                os.rename(record.parent, target)
        for place in (_NEW, _OLD):
            shutil.rmtree(staging / place, ignore_errors=True)
        if not own:
            _empty(staging)
            lock.release()


def _empty(staging: Path) -> None:
    """Remove a hidden place; the lock last, while it is held."""
    # Without the lock no process may touch this place, so it goes last.
    for place in (_NEW, _OLD):
        shutil.rmtree(staging / place, ignore_errors=True)
    for name in (RECORD, _LOCK):
        (staging / name).unlink(missing_ok=True)
    with suppress(OSError):
        staging.rmdir()


def _standing(path: Path, recorded: list[str]) -> list[str]:
    """The file's current hash, if it is one of those recorded."""
    return [current] if path.is_file() and (current := digest(path)) in recorded else []


def _digests(folder: Path) -> dict[str, list[str]]:
    return {path.relative_to(folder).as_posix(): [digest(path)] for path in files_in(folder) if path != folder}


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Let everything in a folder reach the disk, so that a power cut after its renaming finds it whole."""
    for parent, _, names in os.walk(folder):
        for name in names:
            # Opened for writing: Windows does not sync a file that is open for reading.
            with (Path(parent) / name).open("rb+") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """A whole file at once.

    Raises:
        OutputError: it cannot be written.
    """
    with held(path.parent, path.name, wait=10.0) as space, space.file(path) as part:
        part.write_text(text, encoding="utf-8")
