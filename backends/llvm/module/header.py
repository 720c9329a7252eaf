"""The C header, and the files by which CMake and pkg-config find a library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import jinja2

import irc
from irc import fixedpoint
from irc.backends.llvm.module.edge import crosses
from irc.backends.llvm.module.interface import ALIGN, Interface, Port, fresh

templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


@dataclass(frozen=True)
class Macros:
    """The macros of one tensor under one prefix."""

    prefix: str
    port: Port

    @property
    def shape(self) -> str:
        """The shape as a C initializer."""
        return _listed(self.port.type.shape or (1,))

    @property
    def scale(self) -> float:
        """The only scale."""
        (scale,) = fixedpoint.quant_of(self.port.type).scales
        return scale

    @property
    def zero_point(self) -> int:
        """The only zero point."""
        point = fixedpoint.quant_of(self.port.type).zero_point
        return point if isinstance(point, int) else point[0]

    @property
    def scales(self) -> str:
        """The scale of each column as a C initializer."""
        return _listed(fixedpoint.quant_of(self.port.type).scales)

    @property
    def zero_points(self) -> str:
        """The zero point of each column as a C initializer."""
        quant = fixedpoint.quant_of(self.port.type)
        points = quant.zero_point
        return _listed(points if isinstance(points, tuple) else (points,) * len(quant.scales))


def _listed(numbers: Iterable[float]) -> str:
    return "{" + ",".join(map(repr, numbers)) + "}"


def header(interface: Interface, *, float_io: bool) -> str:
    """`NAME.h`: C99 and C++, nothing else needed."""
    return _render(
        "header.h.j2",
        interface,
        upper=interface.name.upper(),
        align=ALIGN,
        macros=[*_macros(interface, interface.inputs), *_macros(interface, interface.outputs)],
        integer=_parameters(interface, real=False),
        real=_parameters(interface, real=True),
        initial=", ".join(f"{p.c_type} *{p.c_name}" for p, _ in interface.states),
        float_io=float_io,
        by_columns=any(p.by_columns for p in interface.ports),
        lacks=any(p.missing is not None for p in interface.ports),
    )


def cmake_config(interface: Interface, kinds: Sequence[str]) -> str:
    """`NAMEConfig.cmake`: imported targets `NAME::NAME` (static) and `NAME::shared`."""
    return _render("config.cmake.j2", interface, kinds=kinds)


def pkg_config(interface: Interface) -> str:
    """`NAME.pc`, relocatable."""
    return _render("library.pc.j2", interface, version=irc.__version__)


def _render(template: str, interface: Interface, **values: object) -> str:
    return templates.get_template(template).render(
        interface=interface, name=interface.name, **values
    )


def _macros(interface: Interface, ports: Sequence[Port]) -> list[Macros]:
    """One set per tensor under its name; where there is only one, also under no name."""
    found: list[Macros] = []
    taken: set[str] = set()
    for index, port in enumerate(ports):
        prefix = f"{interface.name}_{port.kind}".upper()
        label = re.sub(r"\W", "_", port.name, flags=re.ASCII).strip("_").upper()
        numbered = (f"{label}{n}" for n in count(index))
        label = fresh(chain([label] if label else [], numbered), taken)
        if len(ports) == 1:
            found.append(Macros(prefix, port))
        found.append(Macros(f"{prefix}_{label}", port))
    return found


def _parameters(interface: Interface, *, real: bool) -> str:
    """The parameter list of `run` or of `run_f32`."""
    listed = []
    for port in interface.ports:
        element = "float" if real and crosses(port) else port.c_type
        const = "const " if port.kind == "input" else ""
        listed.append(f"{const}{element} *{port.c_name}")
    return ", ".join([*listed, "void *workspace"])
