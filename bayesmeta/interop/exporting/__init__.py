"""Trained learners as programs that run without this library: what `bm.export` writes.

`TorchProgram`, `InductorPackage` and `OnnxProgram` are the forms that a program may have; what stands in the folder is
on the page about exporting (docs/how_to/exporting.md).
"""

from bayesmeta.interop.exporting.forms import Form, InductorPackage, OnnxProgram, TorchProgram

__all__ = ["Form", "InductorPackage", "OnnxProgram", "TorchProgram"]
