"""Single values as people write them: durations, sizes, thresholds, counts. Reads them, names their range, no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema

from autoscaler.model.duration import PATTERN as DURATION
from autoscaler.model.duration import parse_duration
from autoscaler.model.quantity import PATTERN as QUANTITY_PATTERN
from autoscaler.model.quantity import milli, parse_quantity

DNS_1035: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
DNS_1123: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_1123_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
API_VERSION_OF_A_KIND: Final = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9][a-z0-9]*$"
KIND_NAME: Final = r"^[A-Z][A-Za-z0-9]*$"
DURATION_TEXT: Final = r"^([0-9]{1,5}(\.[0-9]{1,3})?(ms|s|m|h)){1,4}$"  # in objects; CEL reads it without overflow
INT32_MAX: Final = 2**31 - 1

Count = Annotated[int, Field(strict=True, ge=0, le=INT32_MAX)]
Positive = Annotated[int, Field(strict=True, ge=1, le=INT32_MAX)]
Seconds = Annotated[int, Field(strict=True, ge=0, le=3600)]
Percent = Annotated[float, Field(strict=True, ge=1, le=100)]
DnsName = Annotated[str, Field(pattern=DNS_1123, max_length=63)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]

_THRESHOLD_LENGTH: Final = 32


def format_duration(seconds: float) -> str:
    """A short text that reads back as the same: `format_duration(90) == "1m30s"`, `format_duration(1.5) == "1.5s"`."""
    if seconds != int(seconds):
        return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.3f}".rstrip("0") + "s"
    pieces, left = "", int(seconds)
    for unit, size in (("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        pieces += f"{count}{unit}" if count else ""
    return pieces or "0s"


def refused(sentence: str) -> PydanticCustomError:
    """An error whose text is the whole sentence."""
    return PydanticCustomError("refused", "{sentence}", {"sentence": sentence})


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds, written like 30s, 1m30s, 500ms or 1h. A plain number is refused: it does not say its unit."""

    low: str
    high: str
    whole_seconds: bool = False

    def read(self, value: object) -> float:
        allowed = f"allowed: a duration from {self.low} to {self.high}" + (" in whole seconds" * self.whole_seconds)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise refused(f"not a duration such as 30s or 1m30s; {allowed}")
        if not isinstance(value, str):
            raise refused(f"value {value} has no unit; write {value}s for seconds; {allowed}")
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise refused(f"value {value!r} is not a duration such as 30s or 1m30s; {allowed}") from None
        in_range = parse_duration(self.low) <= seconds <= parse_duration(self.high)
        if not in_range or (self.whole_seconds and seconds != int(seconds)):
            raise refused(f"value {value!r} is out of range; {allowed}")
        return seconds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(format_duration, when_used="json")
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": DURATION, "$comment": f"a duration from {self.low} to {self.high}"}


@dataclass(frozen=True, slots=True)
class Size:
    """Whole bytes, written as a number or a quantity such as 4Mi."""

    low: str
    high: str

    def read(self, value: object) -> int:
        allowed = f"allowed: a size from {self.low} to {self.high}"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise refused(f"not a size such as 4Mi; {allowed}")
        try:
            size = parse_quantity(value)
        except ValueError:
            raise refused(f"value {value!r} is not a size such as 4Mi; {allowed}") from None
        if size.denominator != 1 or not parse_quantity(self.low) <= size <= parse_quantity(self.high):
            raise refused(f"value {value!r} is out of range; {allowed}")
        return int(size)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(_format_size, when_used="json")
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        allowed = f"a size from {self.low} to {self.high}"
        return {"type": ["integer", "string"], "pattern": QUANTITY_PATTERN, "$comment": allowed}


def _format_size(size: int) -> str:
    """`_format_size(4194304) == "4Mi"`."""
    for suffix, power in (("Gi", 3), ("Mi", 2), ("Ki", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{suffix}"
    return str(size)


def _threshold(value: object) -> object:
    if isinstance(value, float):
        raise refused(
            f"value {value:g} is a decimal number, and Kubernetes takes whole numbers or quantities; "
            f'write "{value:g}" in quotes or {value * 1000:g}m'
        )
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refused("not a number or quantity; allowed: a number or quantity above 0, e.g. 10 or 500m")
    if isinstance(value, str) and len(value) > _THRESHOLD_LENGTH:
        raise refused(f"{len(value)} characters long; allowed: at most {_THRESHOLD_LENGTH}")
    return value


Threshold = Annotated[
    int | str,
    BeforeValidator(_threshold),
    WithJsonSchema({"type": ["integer", "string"], "maxLength": _THRESHOLD_LENGTH}),
]


def _amount(value: object) -> int:
    allowed = "allowed: a number or quantity from 0 to 1P, e.g. 12, 500m or 64Gi"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refused(f"not an amount; {allowed}")
    try:
        amount = parse_quantity(value)
    except ValueError:
        raise refused(f"value {value!r} is not a quantity; {allowed}") from None
    if not 0 <= amount <= 1000**5:
        raise refused(f"value {value!r} is out of range; {allowed}")
    return milli(value)


Amount = Annotated[
    int,  # whole thousandths
    PlainValidator(_amount),
    WithJsonSchema({"type": ["number", "string"], "pattern": QUANTITY_PATTERN, "minimum": 0}),
]


def page_url(text: str) -> str:
    """The URL, if a page can be fetched from it; what carries credentials is not shown."""
    allowed = "allowed: http:// or https://, a host, no user name or password, no fragment"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise refused(f"the URL (not shown) cannot be read; {allowed}") from None
    if url.username is not None or url.password is not None:
        raise refused(
            f"the URL (not shown) carries credentials, and everyone who may read this file would too; {allowed}"
        )
    if url.scheme not in ("http", "https") or not host or port == 0 or url.fragment or any(c.isspace() for c in text):
        raise refused(f"value {text!r} is no page that can be fetched; {allowed}")
    return text


PageUrl = Annotated[str, Field(max_length=2048), AfterValidator(page_url)]
