"""Images of the containers in a workload's templates, and the change that `tidegate set image` makes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autoscaler.cluster.inferenceworkload import Serving

_DEPLOYMENT = (("deployment", "template"), "")
_LEADER = (("leaderWorkerSet", "leaderTemplate"), "leader ")
_WORKER = (("leaderWorkerSet", "workerTemplate"), "worker ")
Place = tuple[str, str]  # below spec.serving: the kind and its template


def images_of(serving: Serving) -> list[str]:
    """`vllm=vllm/vllm-openai:v0.11.0` for each container; of a group with two templates it says of which."""
    templates = list(_templates(serving))
    several = len(templates) > 1
    return [
        f"{word if several else ''}{container.get('name')}={container.get('image')}"
        for _, word, template in templates
        for container in _containers(template)
    ]


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """`["vllm=example/vllm:2"]` by container. Raises ValueError with a sentence."""
    wanted: dict[str, str] = {}
    for text in assignments:
        container, _, image = text.partition("=")
        if not container or not image.strip() or image != image.strip():
            raise ValueError(f"{text!r} is not CONTAINER=IMAGE, e.g. vllm=vllm/vllm-openai:v0.12.0")
        if container in wanted:
            raise ValueError(f"container {container} is named twice")
        wanted[container] = image
    return wanted


def operations(serving: Serving, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """The JSON Patch: it changes nothing where a container is not where it was seen; empty where all is so already.

    Raises ValueError, with the names that there are, for a container that no template has.
    """
    found: dict[str, int] = dict.fromkeys(wanted, 0)
    patch: list[dict[str, Any]] = []
    for (kind, template_name), _, template in _templates(serving):
        for index, container in enumerate(_containers(template)):
            name = str(container.get("name"))
            if name not in wanted:
                continue
            found[name] += 1
            if container.get("image") == wanted[name]:
                continue
            path = f"/spec/serving/{kind}/{template_name}/spec/containers/{index}"
            patch.append({"op": "test", "path": f"{path}/name", "value": name})
            patch.append({"op": "add", "path": f"{path}/image", "value": wanted[name]})  # add replaces what is there
    missing = [name for name, times in found.items() if not times]
    if missing:
        there = {str(each.get("name")) for _, _, template in _templates(serving) for each in _containers(template)}
        raise ValueError(f"no container {', '.join(missing)}; there are: {', '.join(sorted(there)) or 'none'}")
    return patch


def _templates(serving: Serving) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    groups = serving.leader_worker_set
    named = (
        (_DEPLOYMENT, serving.deployment.template if serving.deployment is not None else None),
        (_LEADER, groups.leader_template if groups is not None else None),
        (_WORKER, groups.worker_template if groups is not None else None),
    )
    for (place, word), template in named:
        if template is not None:
            yield place, word, template


def _containers(template: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (template.get("spec") or {}).get("containers") or ()
