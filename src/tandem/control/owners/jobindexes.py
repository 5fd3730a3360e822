"""The indexes of an Indexed Job: which of them a Pod has, and sets of them as text (``0,2-4``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from tandem.api.kind import Doc
from tandem.api.meta import get

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
VARIABLE = "JOB_COMPLETION_INDEX"

_NAME_LENGTH = 58  # with the five random letters that come after it, a label's length


def parse(text: str, completions: int) -> set[int]:
    """The indexes that a text names, those below ``completions``."""
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return found


def write(indexes: Iterable[int]) -> str:
    """The shortest text: two that follow each other stand side by side, more are a range."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join(
        str(part[0])
        if len(part) == 1
        else f"{part[0]}{',' if part[1] == part[0] + 1 else '-'}{part[1]}"
        for part in parts
    )


def index_of(pod: Doc) -> int | None:
    """The index that a Pod works on, None when it has none."""
    text = get(pod, "metadata.annotations", {}).get(INDEX, "")
    return int(text) if text.isdigit() else None


def indexes_of(pods: Iterable[Doc]) -> set[int]:
    """The indexes that Pods work on."""
    return {index for pod in pods if (index := index_of(pod)) is not None}


def pending(taken: Collection[int], completions: int) -> Iterator[int]:
    """The indexes that are not taken, the lowest first."""
    return (index for index in range(completions) if index not in taken)


def failures(pod: Doc) -> int:
    """How often the Pod's index had failed before it, as far as that counts."""
    return _number(pod, FAILURES)


def all_failures(pod: Doc) -> int:
    """The same with the failures that a policy ignores."""
    return _number(pod, FAILURES) + _number(pod, IGNORED_FAILURES)


def ignored_failures(pod: Doc) -> int:
    """Only those."""
    return _number(pod, IGNORED_FAILURES)


def give_index(pod: Doc, job_name: str, index: int) -> None:
    """Make a Pod's document that of one index: its name, its host name, and where it reads it."""
    metadata, spec = pod["metadata"], pod["spec"]
    suffix = f"-{index}-"
    metadata["generateName"] = job_name[: _NAME_LENGTH - len(suffix)] + suffix
    metadata.setdefault("annotations", {})[INDEX] = str(index)
    metadata.setdefault("labels", {})[INDEX] = str(index)
    spec["hostname"] = f"{job_name}-{index}"
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            env = container.setdefault("env", [])
            if all(entry.get("name") != VARIABLE for entry in env):
                env.append({"name": VARIABLE, "valueFrom": source})


def _number(pod: Doc, annotation: str) -> int:
    text = get(pod, "metadata.annotations", {}).get(annotation, "")
    return int(text) if text.isdigit() else 0
