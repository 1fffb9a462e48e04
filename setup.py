"""Compile the kernels; everything else about the package stands in pyproject.toml.

Why a setup.py at all: the flags depend on the compiler at hand (OpenMP where it has it), which
pyproject.toml cannot express. The instruction set is chosen when the module is loaded (see
``scores/_softmax.h``), so that one build runs on every x86-64 and still uses AVX-512.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = ("meta_ood.metrics.pixel._kernel", "meta_ood.scores._kernel", "meta_ood.segments._kernel")
INCLUDE = "src/meta_ood/scores"
HEADERS = (f"{INCLUDE}/_softmax.h", f"{INCLUDE}/_softmax_rows.h")
OPENMP = {"msvc": ["/openmp"], "unix": ["-fopenmp"]}
OPTIMISE = {"msvc": ["/O2"], "unix": ["-O3", "-fno-math-errno", "-fno-trapping-math"]}


class BuildKernels(build_ext):
    """Add the flags that the compiler at hand understands."""

    def build_extensions(self) -> None:
        """Compile every extension with optimisation and, where it links, OpenMP."""
        kind = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        openmp = OPENMP[kind] if self._links(OPENMP[kind]) else []
        for extension in self.extensions:
            extension.extra_compile_args = OPTIMISE[kind] + openmp
            extension.extra_link_args = openmp if kind == "unix" else []
            if sys.platform == "linux":
                # PyTorch's OpenMP, which lies beside the package: one for both, and the system's is not needed
                up = "/".join([".."] * extension.name.count("."))
                extension.extra_link_args = [*openmp, f"-Wl,-rpath,$ORIGIN/{up}/torch/lib"]
        if not openmp:
            sys.stderr.write("meta-ood: this compiler has no OpenMP; one thread a frame\n")
        super().build_extensions()

    def _links(self, flags: list[str]) -> bool:
        """Return whether a program that calls OpenMP compiles and links with `flags`."""
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(program, encoding="ascii")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_executable(objects, str(Path(folder, "openmp")), extra_postargs=flags)
            except Exception:  # what a compiler raises is its own affair
                return False
        return True


def _extension(name: str) -> Extension:
    source = Path("src", *name.split(".")).with_suffix(".pyx")
    return Extension(name, [source.as_posix()], include_dirs=[INCLUDE], depends=list(HEADERS))


setup(
    ext_modules=cythonize([_extension(name) for name in MODULES], language_level=3),
    cmdclass={"build_ext": BuildKernels},
)
