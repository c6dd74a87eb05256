"""The forms of an exported model: each is written to a file, and read back as another program would read it."""

from __future__ import annotations

import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.export.graph import EXAMPLE, ExportableModel, Recorded, blamed, exported_program
from mi2p_inject.recipes.export.onnx_file import EXTRA, open_onnx, write_onnx

__all__ = ["FORMATS", "Answers", "Format"]

Answers = Callable[[Mapping[str, Tensor]], NDArray[Any]]
"""Named tensors -> (B, classes)."""


class Format(ABC):
    """A form of an exported model.

    Attributes:
        name: as `mi2p export --NAME` has it.
        suffix: of its files.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def check(self) -> None:
        """Raise `RecipeError` where this machine cannot write it, before anything is loaded."""

    def record(self, model: ExportableModel) -> Recorded:
        """The graph of a model; raises `RecipeError` where it has none."""
        return exported_program(model)

    @abstractmethod
    def write(self, model: ExportableModel, recorded: Recorded, notes: Mapping[str, Any], path: Path) -> None:
        """Write the file, and none but those beside it that belong to it.

        Args:
            model: what it holds.
            recorded: what `record` gave.
            notes: kept inside where the form has a place for them.
            path: of the file.
        """

    @abstractmethod
    def open(self, path: Path, model: ExportableModel) -> Answers:
        """The file as a function."""


@final
class Onnx(Format):
    """ONNX by torch's exporter over `torch.export`; read by onnxruntime."""

    name, suffix = "onnx", ".onnx"

    def check(self) -> None:
        missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
        if missing:
            raise RecipeError(f"--onnx needs {', '.join(missing)}", fix=f"pip install '{EXTRA}'")

    def write(self, model: ExportableModel, recorded: Recorded, notes: Mapping[str, Any], path: Path) -> None:
        write_onnx(model, recorded.graph, notes, path)

    def open(self, path: Path, model: ExportableModel) -> Answers:
        return open_onnx(path)


@final
class Program(Format):
    """The graph of `torch.export`, for torch in Python: `torch.export.load`."""

    name, suffix = "program", ".pt2"

    def check(self) -> None:
        """torch alone is needed."""

    def write(self, model: ExportableModel, recorded: Recorded, notes: Mapping[str, Any], path: Path) -> None:
        torch.export.save(recorded.graph, path)

    def open(self, path: Path, model: ExportableModel) -> Answers:
        module = torch.export.load(path).module()
        return lambda batch: np.asarray(module(**batch))


@final
class TorchScript(Format):
    """The trace of `torch.jit`, for programs in C++ that have libtorch: `torch.jit.load`."""

    name, suffix = "torchscript", ".pt"

    def check(self) -> None:
        """torch alone is needed."""

    def record(self, model: ExportableModel) -> Recorded:
        example = model.batch_of(*EXAMPLE)
        with torch.no_grad(), warnings.catch_warnings(), blamed(model, "torch.jit.trace"):
            warnings.simplefilter("ignore")  # what depends on a value shows in the check of what was written
            traced = torch.jit.trace(_Ordered(model), tuple(example.values()), check_trace=False)
        return Recorded(traced)

    def write(self, model: ExportableModel, recorded: Recorded, notes: Mapping[str, Any], path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export
            torch.jit.save(recorded.graph, str(path))

    def open(self, path: Path, model: ExportableModel) -> Answers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(str(path))
        return lambda batch: np.asarray(module(*batch.values()))


@final
class Compiled(Format):
    """AOTInductor: machine code for this kind of processor, for programs without Python: `aoti_load_package`."""

    name, suffix = "aoti", ".pt2"

    def check(self) -> None:
        from torch._inductor.config import cpp

        names = (cpp.cxx,) if isinstance(cpp.cxx, str) else cpp.cxx
        if not any(one and shutil.which(one) for one in names):
            raise RecipeError(
                "--aoti compiles C++, and this machine has no compiler",
                expected="g++ or clang++ on the path, or its name in the environment variable CXX",
                given=f"none of {', '.join(str(one) for one in names if one)}",
                fix="install one (apt-get install g++), or give --program: torch can compile that elsewhere",
            )

    def write(self, model: ExportableModel, recorded: Recorded, notes: Mapping[str, Any], path: Path) -> None:
        with blamed(model, "AOTInductor"):
            torch._inductor.aoti_compile_and_package(recorded.graph, package_path=str(path))

    def open(self, path: Path, model: ExportableModel) -> Answers:
        module = torch._inductor.aoti_load_package(str(path))
        return lambda batch: np.asarray(module(**batch))


class _Ordered(torch.nn.Module):
    """Tensors in the order of `ExportableModel.input_names`: a trace has no names."""

    def __init__(self, model: ExportableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> Tensor:
        found: Tensor = self.model(**dict(zip(self.model.input_names, tensors, strict=True)))
        return found


FORMATS: dict[str, Format] = {one.name: one for one in (Onnx(), Program(), TorchScript(), Compiled())}
"""Name of the option of `mi2p export` -> form."""
