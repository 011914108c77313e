"""Names that become files: what is accepted is one component of a path, whatever text it comes from."""

import os
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from lightning_icl.file_names import fault_of_name, folder_name

TEXTS = st.one_of(
    st.text(max_size=120),
    st.text(alphabet="./\\ ~-a:字\n\0", max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "victim", "org"]), max_size=5).map("/".join),
)


@given(TEXTS)
@example("..")
@example("a" * 100)
@example("é" * 100)
@example("\ud800")
def test_a_name_without_fault_makes_a_folder_inside_its_own_and_nothing_else(name: str) -> None:
    if fault_of_name(name) is not None:
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).mkdir()
        assert os.listdir(folder) == [name]
        assert (Path(folder) / name).resolve().parent == Path(folder).resolve()
        (Path(folder) / f".lightning-icl-{name}.part").mkdir()  # with what stands around a name


@given(TEXTS)
@example("org/model 1.3B")
@example("字" * 300)
def test_any_text_makes_a_folder_name_that_has_no_fault(text: str) -> None:
    name = folder_name(text)
    assert fault_of_name(name) in (None, "a run has a file of that name")
    assert folder_name(name) == name


def test_names_that_were_fine_stay_fine() -> None:
    for name in ("sst2", "tiny-cb", "my task", "my.task-2", "über", "任务", "-rf", "[red]", "#1 (new)"):
        assert fault_of_name(name) is None
