"""The tasks that are known by name: the paper's, more, and the built-in ones; and a user's own from YAML."""

from collections.abc import Mapping
from pathlib import Path

from lightning_icl.errors import TaskError, did_you_mean
from lightning_icl.file_names import input_path
from lightning_icl.published import published_by_size
from lightning_icl.tasks._choice import MultipleChoice
from lightning_icl.tasks._yaml_task import read_task
from lightning_icl.tasks.generated import GENERATED
from lightning_icl.tasks.task import HubSource, Task

_AGNEWS = "Classify the news articles into the categories of World, Sports, Business, and Technology. "
_DBPEDIA = (
    "Classify the documents based on whether they are about a Company, School, Artist, Athlete, Politician, "
    "Transportation, Building, Nature, Village, Animal, Plant, Album, Film, or Book. Article: {content} Answer:"
)


def _paper_task(
    name: str, templates: tuple[str, str], answers: tuple[str, ...], source: HubSource, reference: str
) -> Task:
    """A task of the paper, with its program's template and the one its text prints."""
    # Rates of both model sizes, and the smaller one's as a guess for any other model.
    rates = published_by_size("learning_rate", name)
    return Task(
        name=name,
        templates=dict(zip(("program", "paper"), templates, strict=True)),
        answers=answers,
        source=source,
        learning_rates={**rates, "default": rates["1.3B"]},
        seeds={size: int(seed) for size, seed in published_by_size("seed", name).items()},
        reference=reference,
    )


PAPER: Mapping[str, Task] = {
    task.name: task
    for task in (
        _paper_task(
            "sst2",
            ("Sentence: {sentence} Label:",) * 2,
            ("Negative", "Positive"),
            HubSource(path="nyu-mll/glue", config="sst2"),
            "Socher et al. 2013; Wang et al. 2019",
        ),
        _paper_task(
            "sst5",
            ("Sentence: {text} Label:",) * 2,
            ("terrible", "bad", "neutral", "good", "great"),
            HubSource(path="SetFit/sst5"),
            "Socher et al. 2013",
        ),
        _paper_task(
            "mr",
            ("Review: {text} Sentiment:",) * 2,
            ("Negative", "Positive"),
            HubSource(path="cornell-movie-review-data/rotten_tomatoes"),
            "Pang and Lee 2005",
        ),
        _paper_task(
            "subj",
            ("Input: {text} Type:",) * 2,
            ("objective", "subjective"),
            HubSource(path="SetFit/subj", query_split="test"),
            "Pang and Lee 2004",
        ),
        _paper_task(
            "agnews",
            (_AGNEWS + "Article: {text} Answer:", _AGNEWS + "News: {text} Type:"),
            ("World", "Sports", "Business", "Technology"),
            HubSource(path="fancyzhx/ag_news", query_split="test"),
            "Zhang, Zhao and LeCun 2015",
        ),
        _paper_task(
            "cb",
            (
                "{premise} Question: {hypothesis}. True, False, or Neither? Answer:",
                "{premise} Question: {hypothesis} True, False, or Neither? Answer:",
            ),
            ("True", "False", "Neither"),
            HubSource(path="aps/super_glue", config="cb", revision="refs/convert/parquet"),
            "de Marneffe, Simons and Tonhauser 2019; Wang et al. 2019",
        ),
    )
}

MORE: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="trec",
            templates={"program": "Question: {text} Type:"},
            answers=("Abbreviation", "Entity", "Description", "Person", "Location", "Number"),
            source=HubSource(
                path="CogComp/trec", query_split="test", label_field="coarse_label", revision="refs/convert/parquet"
            ),
            reference="Li and Roth 2002; Hovy et al. 2001",
        ),
        Task(
            name="rte",
            templates={"program": "{sentence1} Question: {sentence2} True or False? Answer:"},
            answers=("True", "False"),
            source=HubSource(path="nyu-mll/glue", config="rte"),
            reference="Dagan et al. 2005; Wang et al. 2019",
        ),
        Task(
            name="dbpedia",
            templates={"program": _DBPEDIA},
            answers=tuple(
                (
                    "Company School Artist Athlete Politician Transportation Building Nature Village Animal Plant "
                    "Album Film Book"
                ).split()
            ),
            source=HubSource(path="fancyzhx/dbpedia_14", query_split="test"),
            reference="Zhang, Zhao and LeCun 2015",
        ),
        Task(
            name="imdb",
            templates={"program": "Review: {text} Sentiment:"},
            answers=("Negative", "Positive"),
            source=HubSource(path="stanfordnlp/imdb", query_split="test"),
            reference="Maas et al. 2011",
        ),
        MultipleChoice(
            name="arc_easy",
            templates={"program": "Question: {question} Answer:"},
            option_fields=("choices.text",),
            option_labels="choices.label",
            label_field="answerKey",
            source=HubSource(path="allenai/ai2_arc", config="ARC-Easy"),
            reference="Clark et al. 2018",
        ),
        MultipleChoice(
            name="piqa",
            templates={"program": "Question: {goal} Answer:"},
            option_fields=("sol1", "sol2"),
            source=HubSource(path="ybisk/piqa", revision="refs/convert/parquet"),
            reference="Bisk et al. 2020",
        ),
    )
}

TASKS: Mapping[str, Task] = {**PAPER, **MORE, **GENERATED}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "paper": tuple(PAPER),
    "momentum": ("sst5", "imdb", "mr", "cb", "arc_easy", "piqa"),  # of the paper's section 5
    "builtin": tuple(GENERATED),
}


def resolve_tasks(names_or_groups: str) -> dict[str, Task]:
    """Tasks by names with commas between them; a name may be a group or a YAML file.

    >>> list(resolve_tasks("sst2,trec"))
    ['sst2', 'trec']

    Returns:
        The tasks by the words that name each one alone.

    Raises:
        TaskError: an unknown name, a task asked for twice, or a file that is no task.
    """
    # A group is a word among others: `paper,trec` is both.
    names = [member for part in names_or_groups.split(",") for member in GROUPS.get(part.strip(), (part.strip(),))]
    tasks = {name: _find(name) for name in names}
    titles = [task.name for task in tasks.values()]
    # By title too: two files may hold the same task, whose folders would collide.
    twice = next((title for title in titles if titles.count(title) > 1), None)
    twice = twice or next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TaskError(f"--task {names_or_groups}: task {twice!r} is asked for twice.")
    return tasks


def neighbour(name: str) -> Task | None:
    """The next task of the first group that a task belongs to, the first after the last; None where it has none.

    >>> neighbour("tiny-sst2").name, neighbour("cb").name, neighbour("mine")
    ('tiny-sst5', 'sst2', None)
    """
    for group in (PAPER, MORE, GENERATED):
        if name in group:
            names = list(group)
            # Wraps around, so that the last task has a neighbour too.
            return group[names[(names.index(name) + 1) % len(names)]]
    return None


def _find(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    # A path is told by its ending; a name without one is looked up and refused with suggestions.
    if Path(name).suffix in (".yaml", ".yml"):
        return read_task(input_path(name, "--task"))
    raise TaskError(
        f"Task {name!r} is not known. {did_you_mean(name, [*TASKS, *GROUPS])} A task of your own is a YAML file, given "
        "by its path."
    )
