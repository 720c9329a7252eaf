"""`python -m bench.torch_zoo [NAME...]`: what becomes of torchvision's and timm's architectures.

Each goes through a process of its own: import, evaluation against torch, calibration, compilation,
and the noise of the integer library. Random weights, batch norms settled on photos: the table says
what is supported, and nothing about accuracy; those of the source "trained" have their own weights.
Needs torch; torchvision, timm and facenet-pytorch for those that come from them.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import irc
from bench.accuracy import sqnr_db
from bench.images import Floats, normalized, photo_crops
from bench.models import (
    EVALUATION_SEED,
    IMAGENET_MEAN,
    IMAGENET_STD,
    lite_crops,
    lite_files,
)
from bench.torch_export import efficientnet_lite0, import_torchvision, settle_batch_norms

SEED = 0
SAMPLES = 2  # to calibrate with, and as many others to measure on
SETTLING = 8

TORCHVISION = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "squeezenet1_1", "shufflenet_v2_x1_0", "mnasnet1_0", "densenet121", "googlenet",
    "regnet_y_400mf", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t",
    "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large.backbone",
)  # fmt: skip
TIMM = (
    "mobilenetv3_small_100", "mobilenetv4_conv_small", "resnest14d", "convnext_atto",
    "convnextv2_atto", "regnetx_002", "regnety_002", "ghostnet_100", "mobilevit_xxs",
    "mobilevitv2_050", "levit_128s", "efficientformer_l1", "efficientformerv2_s0",
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pit_ti_224",
    "poolformer_s12", "edgenext_xx_small", "repvgg_a0", "hrnet_w18_small", "dla46_c",
    "res2net50_14w_8s", "tinynet_e", "mixnet_s", "fbnetc_100", "mnasnet_small", "hardcorenas_a",
    "lcnet_050", "rexnet_100", "semnasnet_075", "spnasnet_100", "skresnet18", "seresnet50",
    "ese_vovnet19b_dw", "cspresnet50", "xcit_nano_12_p16_224", "cait_xxs24_224", "fastvit_t8",
    "repvit_m1", "mobileone_s0", "efficientvit_b0", "tiny_vit_5m_224", "starnet_s1",
    "inception_next_atto", "resmlp_12_224", "mixer_s32_224", "visformer_tiny", "nfnet_l0",
    "eca_nfnet_l0", "botnet26t_256", "maxvit_rmlp_pico_rw_256", "coat_tiny", "crossvit_tiny_240",
    "ecaresnet26t", "gernet_s", "selecsls42b", "vgg11_bn", "dpn68", "xception41",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What became of one architecture; None for a step that was not reached."""

    name: str
    nodes: int | None = None
    """After import."""
    error: float | None = None
    """Largest difference of `irc.evaluate` from torch, relative to the largest output."""
    kernels: int | None = None
    sqnr: float | None = None
    """Of the integer library against torch, dB over the samples."""
    failed: str = ""
    """The step that failed, and why."""


@dataclass(frozen=True)
class Subject:
    """A module in evaluation mode, and its inputs: f32[n, ...] of one seed."""

    module: Any
    samples: Callable[[int, int], Floats]


# ---------------------------------------------------------------- where they come from


def crops(size: int) -> Callable[[int, int], Floats]:
    """Normalized photo crops: (count, seed) -> f32[count, 3, size, size]."""
    return lambda count, seed: normalized(
        photo_crops(count, size, seed), IMAGENET_MEAN, IMAGENET_STD
    )


def settled(module: Any, samples: Callable[[int, int], Floats]) -> Subject:
    """The module with sane batch norms."""
    torch = importlib.import_module("torch")
    settle_batch_norms(module.eval(), torch.from_numpy(samples(SETTLING, SEED)))
    return Subject(module.eval(), samples)


def from_torchvision(name: str) -> Subject:
    """A classifier, a segmentation network, or the part of a network after a dot."""
    torchvision = import_torchvision()
    importlib.import_module("torch").manual_seed(SEED)
    architecture, _, part = name.partition(".")
    options: dict[str, Any] = {"init_weights": False} if architecture == "googlenet" else {}
    if architecture.startswith(("deeplab", "lraspp", "ssd")):
        options["weights_backbone"] = None
    module = torchvision.models.get_model(architecture, weights=None, **options)
    size = 320 if architecture.startswith("ssd") else 224
    return settled(module.get_submodule(part), crops(size))


def from_timm(name: str) -> Subject:
    """An architecture of timm at its own image size."""
    import_torchvision()
    timm = importlib.import_module("timm")
    importlib.import_module("torch").manual_seed(SEED)
    module = timm.create_model(name, pretrained=False)
    return settled(module, crops(module.default_cfg["input_size"][-1]))


def trained(name: str) -> Subject:
    """EfficientNet-lite0, or a network of facenet-pytorch's MTCNN, with its own weights."""
    import_torchvision()
    if name == "efficientnet_lite0":
        return Subject(efficientnet_lite0(*lite_files()), lite_crops)
    mtcnn = importlib.import_module("facenet_pytorch.models.mtcnn")
    return Subject(getattr(mtcnn, name)().eval(), crops(48 if name == "ONet" else 96))


SOURCES: dict[str, tuple[Callable[[str], Subject], tuple[str, ...]]] = {
    "torchvision": (from_torchvision, TORCHVISION),
    "timm": (from_timm, TIMM),
    "trained": (trained, ("efficientnet_lite0", "PNet", "ONet")),
}


# ---------------------------------------------------------------- one of them


class Stage:
    """Says which step an error belongs to."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self.name = "load"


def measured(name: str, subject: Subject, stage: Stage) -> Iterator[Row]:
    """The row after each step."""
    torch = importlib.import_module("torch")
    x = subject.samples(SAMPLES, EVALUATION_SEED)
    stage.name = "import"
    graph = irc.from_torch(subject.module, torch.from_numpy(x[:1]))
    yield (row := Row(name, nodes=len(graph.order)))
    stage.name = "evaluate"
    with torch.no_grad():
        wanted = np.stack([first(subject.module(torch.from_numpy(one[None]))) for one in x])
    key = graph.inputs[0].name
    found = next(iter(irc.evaluate(graph, {key: x[:1]}).values()))
    error = float(np.abs(found - wanted[0]).max() / np.abs(wanted[0]).max())
    yield (row := Row(name, row.nodes, error))
    stage.name = "quantize"
    calibration = [{key: one[None]} for one in subject.samples(SAMPLES, SEED)]
    quantized = irc.quantize(graph, calibration=calibration, progress=lambda _: None)
    stage.name = "compile"
    model = irc.compile(quantized)
    ours = np.stack([next(iter(model({key: one[None]}).values())) for one in x])
    yield Row(name, row.nodes, error, kernels(model.graph), sqnr_db(ours, wanted))


def first(results: Any) -> Floats:
    """The first tensor of a result."""
    pytree = importlib.import_module("torch.utils._pytree")
    array: Floats = pytree.tree_leaves(results)[0].numpy()
    return array


def kernels(graph: Any) -> int:
    """How many functions the library calls."""
    return sum(v.op == "kernel" for v in graph.order)


def row_of(source: str, name: str) -> Row:
    """Everything that is found out about one architecture; no error escapes."""
    stage, row = Stage(), Row(name)
    try:
        subject = SOURCES[source][0](name)
        for row in measured(name, subject, stage):  # noqa: B007
            pass
    except Exception as error:  # whatever stops it is the finding
        failed = f"{stage.name}: {type(error).__name__}: {error}"
        return Row(name, row.nodes, row.error, row.kernels, row.sqnr, failed)
    return row


def in_process(source: str, name: str, limit: float) -> Row:
    """`row_of` in a process of its own."""
    command = [sys.executable, "-m", "bench.torch_zoo", "--one", source, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Row(name, failed=f"took longer than {limit:g} s")
    if done.returncode:
        return Row(name, failed=done.stderr.strip()[-300:])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


# ---------------------------------------------------------------- the table


def markdown(rows: Iterable[Row]) -> str:
    """A table, one architecture a line."""
    head = "| architecture | nodes | evaluate | kernels | SQNR, dB | |", "|---|--:|--:|--:|--:|---|"
    return "\n".join([*head, *map(_line, rows)])


def _line(row: Row) -> str:
    cells = (
        row.name,
        "" if row.nodes is None else str(row.nodes),
        "" if row.error is None else f"{row.error:.0e}",
        "" if row.kernels is None else str(row.kernels),
        "" if row.sqnr is None else f"{row.sqnr:.1f}",
        " ".join(row.failed.split())[:200].replace("|", "/"),
    )
    return f"| {' | '.join(cells)} |"


def run(source: str, names: Iterable[str], limit: float, path: Path | None) -> list[Row]:
    """Each in turn; rows are printed as they come, and written to `path`."""
    rows: list[Row] = []
    for name in names:
        start = time.perf_counter()
        rows.append(in_process(source, name, limit))
        print(f"{_line(rows[-1])} {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if path:
            path.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return rows


def main() -> int:
    """Print a table for each source; the exit status is 0 even if architectures fail."""
    parser = argparse.ArgumentParser(prog="python -m bench.torch_zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--source", choices=SOURCES, help="default: all")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asdict(row_of(*given.one))))
        return 0
    for source in [given.source] if given.source else SOURCES:
        known = SOURCES[source][1]
        names = [n for n in given.names if n in known or given.source] if given.names else known
        if names:
            rows = run(source, names, given.limit, given.json)
            print(f"## {source}\n\n{markdown(rows)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
