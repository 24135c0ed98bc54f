"""The version of this library, in one place that every room may read."""

VERSION = "0.1.0"
