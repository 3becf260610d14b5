"""Generates the CustomResourceDefinitions from the models. The files under config/crd are its output.

Structural schemas (apiextensions v1): no references, no titles, no defaults, null as `nullable`, open objects as
`x-kubernetes-preserve-unknown-fields`, the models' rules as `x-kubernetes-validations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, Final

import yaml

from autoscaler.settings.ledger import LIMIT_RULE, QuotaLedger
from autoscaler.settings.rules import Ruled
from autoscaler.settings.workload import InferenceWorkload

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "default", "$defs", "additionalProperties"})


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False  # only with -o wide
    description: str = ""

    def as_dict(self) -> Schema:
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        return {**column, "priority": 1} if self.wide else column


_AGE: Final = Column("AGE", ".metadata.creationTimestamp", "date")
_WORKLOAD_COLUMNS: Final = (
    Column("PHASE", ".status.phase"),
    Column("UPDATE", ".status.rollout.phase", description="Where an update is; empty: there is none"),
    Column("MODE", ".status.scalingMode", description="Who decides: Auto, Manual, Paused, Stopped or Observe"),
    Column("READY", ".status.counts.ready", "integer", description="Replicas that serve"),
    Column("DESIRED", ".status.counts.desired", "integer", description="Replicas that the policy wants"),
    Column("SIGNAL", ".status.signals[0].name", description="What decides, or the first of several"),
    Column("VALUE", ".status.signals[0].value", description="The signal over all ready replicas"),
    Column("TARGET", ".status.signals[0].target", description="What one replica should carry"),
    _AGE,
    Column("MIN", ".spec.autoscaling.minReplicas", "integer", wide=True),
    Column("MAX", ".spec.autoscaling.maxReplicas", "integer", wide=True),
    Column("PROJECT", ".spec.project", wide=True, description="Owner of the quota, where the workload names one"),
    Column("REVISION", ".status.currentRevision", wide=True),
    Column("MESSAGE", ".status.phaseMessage", wide=True),
)
_LEDGER_COLUMNS: Final = (
    Column("LIMIT", ".spec.limit", description="Thousandths of each resource"),
    Column("HOLDERS", ".spec.holds[*].revision", description="Revisions with a reservation"),
    _AGE,
)


def inference_workload_crd() -> Schema:
    """The definition of InferenceWorkload."""
    schema = _root_schema(InferenceWorkload)
    del schema["properties"]["spec"]["properties"]["replicas"]["nullable"]  # the scale subresource cannot read null
    return _definition(
        "InferenceWorkload",
        plural="inferenceworkloads",
        short="iw",
        columns=_WORKLOAD_COLUMNS,
        schema=schema,
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    )


def quota_ledger_crd() -> Schema:
    """The definition of QuotaLedger."""
    schema = _root_schema(QuotaLedger)
    schema["properties"]["spec"]["x-kubernetes-validations"] = [LIMIT_RULE]
    return _definition("QuotaLedger", plural="quotaledgers", short="ql", columns=_LEDGER_COLUMNS, schema=schema)


def definitions() -> dict[str, Schema]:
    """Every definition by its plural name, which names its file."""
    return {"inferenceworkloads": inference_workload_crd(), "quotaledgers": quota_ledger_crd()}


def to_yaml(definition: Schema) -> str:
    """The same definition gives the same bytes."""
    return yaml.safe_dump(definition, sort_keys=False, width=110, allow_unicode=True)


def _definition(
    kind: str,
    *,
    plural: str,
    short: str,
    columns: tuple[Column, ...],
    schema: Schema,
    subresources: Schema | None = None,
) -> Schema:
    version: Schema = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.as_dict() for column in columns],
        "schema": {"openAPIV3Schema": schema},
    }
    if subresources is not None:
        version["subresources"] = subresources
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # uninstalling the chart must not delete every workload
        "metadata": {"name": f"{plural}.tidegate.dev", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": "tidegate.dev", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _root_schema(model: type[Ruled]) -> Schema:
    """The schema of a whole object; its metadata is the API server's."""
    generated = model.model_json_schema(by_alias=True)
    rules = {name: found.cel_validations() for name, found in _models(model).items()}
    schema = _structural(generated, generated.get("$defs", {}), rules)
    schema["properties"].update(
        apiVersion={"type": "string"},
        kind={"type": "string"},
        metadata={"type": "object"},
    )
    schema["required"] = ["spec"]
    if own := rules[model.__name__]:
        schema["x-kubernetes-validations"] = own
    return schema


def _models(model: type[Ruled]) -> dict[str, type[Ruled]]:
    """The model and all models below it, by class name."""
    found = {model.__name__: model}
    for field in model.model_fields.values():
        for below in _ruled_in(field.annotation):
            found.update(_models(below))
    return found


def _ruled_in(annotation: Any) -> list[type[Ruled]]:
    if isinstance(annotation, type) and issubclass(annotation, Ruled):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _ruled_in(part)]


def _structural(
    schema: Mapping[str, Any], defs: Mapping[str, Any], rules: Mapping[str, list[dict[str, str]]]
) -> Schema:
    """One node, with everything below it, as a structural schema."""
    if "anyOf" in schema:
        return _nullable(schema, defs, rules)
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        around = {key: value for key, value in schema.items() if key != "$ref"}
        node = _structural({**defs[name], **around}, defs, rules)
        if rules.get(name):
            node["x-kubernetes-validations"] = rules[name]
        return node
    node = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "description" in node:
        node["description"] = " ".join(cleandoc(node["description"]).split())
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("type") == ["integer", "string"]:
        del node["type"]
        node["x-kubernetes-int-or-string"] = True
    if "properties" in node:
        node["properties"] = {name: _structural(below, defs, rules) for name, below in node["properties"].items()}
    if "items" in node:
        node["items"] = _structural(node["items"], defs, rules)
    return _with_additional(node, schema.get("additionalProperties"), defs, rules)


def _nullable(schema: Mapping[str, Any], defs: Mapping[str, Any], rules: Mapping[str, list[dict[str, str]]]) -> Schema:
    """`X | None`, the only union that the models use."""
    [inner] = [option for option in schema["anyOf"] if option != {"type": "null"}]
    around = {key: value for key, value in schema.items() if key != "anyOf"}
    node = _structural({**inner, **around}, defs, rules)
    # the API server lets no null through an enum, listed or not; kubectl apply leaves nulls out anyway
    return node if "enum" in node else {**node, "nullable": True}


def _with_additional(node: Schema, additional: Any, defs: Mapping[str, Any], rules: Mapping[str, Any]) -> Schema:
    """Closed objects are pruned anyway; open ones keep what they get; maps have a schema for their values."""
    if additional is True:
        node["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(additional, dict):
        node["additionalProperties"] = _structural(additional, defs, rules)
    return node
