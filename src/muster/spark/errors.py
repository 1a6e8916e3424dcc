"""What can be wrong with an application's configuration, for people: never the value of a property."""

from __future__ import annotations


class SparkConfigurationError(Exception):
    """The sizes of an application cannot be had from what it says.

    ``reason`` is CamelCase and stable (conditions, events, metrics); ``message`` names the property, never its value.
    """

    reason = "InvalidConfiguration"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PropertiesError(SparkConfigurationError):
    """The text is no Java properties file. ``line`` is 1-based, ``None`` when no line is to blame."""

    reason = "InvalidProperties"

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(f"{message} (spark.properties, line {line})" if line else f"{message} (spark.properties)")
        self.line = line


class InvalidSizeError(SparkConfigurationError):
    """A size or a count that does not parse, or that no pod and no gang can have. ``source`` is the property's key."""

    reason = "InvalidSize"

    def __init__(self, source: str, message: str) -> None:
        super().__init__(message)
        self.source = source


class SourcesDisagreeError(SparkConfigurationError):
    """Two sources give one application different sizes."""

    reason = "SourcesDisagree"

    def __init__(self, first: str, second: str, fields: tuple[str, ...]) -> None:
        super().__init__(f"{first} and {second} disagree about {', '.join(fields)}")
        self.first = first
        self.second = second
        self.fields = fields
