"""`python -m bench.torch_zoo [NAME...]`: what becomes of torchvision's and timm's architectures.

Each goes through a process of its own: import, evaluation against torch, calibration, compilation,
and the noise of the integer library; with `--peer` also that of onnxruntime's integers, of the same
module, calibrated on the same photos. Random weights, batch norms settled on photos: the table says
what is supported, and nothing about accuracy; those of the source "trained" have their own weights.
Rows that `--write` finds beside its document, measured by this state of the code, are kept.
Needs torch; torchvision and timm for those that come from them.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
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
from bench.peers import OnnxRuntime
from bench.runners import Task
from bench.torch_export import (
    efficientnet_lite0,
    export_example,
    import_torchvision,
    one_thread,
    settle_batch_norms,
)
from bench.torch_table import Row, Table, cells, code_state, markdown, summary, write_document
from bench.torch_trained import facenet

SEED = 0
SAMPLES = 2  # to calibrate with, and as many others to measure on
SETTLING = 8
TOKENS = 32

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
    "fasternet_t0", "shvit_s1", "efficientvit_m0", "repghostnet_050", "lcnetv2_small",
    "cpubone_nano", "iformer_t", "swiftformer_xs", "mambaout_femto", "hgnetv2_b0",
    "efficientvim_m1", "lowformer_b0", "pvt_v2_b0", "convit_tiny", "gmlp_ti16_224",
    "eva02_tiny_patch14_224", "gcvit_xxtiny", "hiera_tiny_224", "mvitv2_tiny", "twins_svt_small",
    "caformer_s18", "sequencer2d_s",
)  # fmt: skip


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
    """The module with sane batch norms, and without layers that begin as zeros."""
    torch = importlib.import_module("torch")
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.02)
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
    """EfficientNet-lite0, MiniLM, or a network of facenet-pytorch's MTCNN, with its own weights."""
    if name == "minilm_l6":
        return Subject(sentence_encoder(), tokens)
    import_torchvision()
    if name == "efficientnet_lite0":
        return Subject(efficientnet_lite0(*lite_files()), lite_crops)
    return Subject(getattr(facenet(), name)().eval(), crops(48 if name == "ONet" else 96))


def sentence_encoder() -> Any:
    """MiniLM, of whose tokens none is padding."""
    torch = importlib.import_module("torch")
    encoder = importlib.import_module("bench.torch_minilm").trained()

    class Whole(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any) -> Any:
            return self.encoder(ids, torch.ones_like(ids))

    return Whole().eval()


def tokens(count: int, seed: int) -> Any:
    """Random token numbers, i64[count, TOKENS]."""
    return np.random.default_rng(seed).integers(1000, 30000, (count, TOKENS))


SOURCES: dict[str, tuple[Callable[[str], Subject], tuple[str, ...]]] = {
    "torchvision": (from_torchvision, TORCHVISION),
    "timm": (from_timm, TIMM),
    "trained": (trained, ("efficientnet_lite0", "PNet", "ONet", "minilm_l6")),
}
TITLES = {"torchvision": "torchvision", "timm": "timm", "trained": "Trained weights"}


# ---------------------------------------------------------------- one of them


class Stage:
    """Says which step an error belongs to."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self.name = "load"


def measured(name: str, subject: Subject, stage: Stage, *, peer: bool) -> Iterator[Row]:
    """The row after each step."""
    torch = importlib.import_module("torch")
    x = subject.samples(SAMPLES, EVALUATION_SEED)
    stage.name = "import"
    graph = irc.from_torch(subject.module, torch.from_numpy(x[:1]))
    yield (row := Row(name, nodes=len(graph.order), state=code_state()))
    stage.name = "evaluate"
    with torch.no_grad():
        wanted = np.stack([first(subject.module(torch.from_numpy(one[None]))) for one in x])
    key = graph.inputs[0].name
    found = next(iter(irc.evaluate(graph, {key: x[:1]}).values()))
    error = float(np.abs(found - wanted[0]).max() / np.abs(wanted[0]).max())
    yield (row := replace(row, error=error))
    stage.name = "quantize"
    calibration = subject.samples(SAMPLES, SEED)
    feeds = [{key: one[None]} for one in calibration]
    quantized = irc.quantize(graph, calibration=feeds, progress=lambda _: None)
    stage.name = "compile"
    model = irc.compile(quantized)
    yield (row := replace(row, kernels=kernels(model.graph)))
    stage.name = "reference"
    yield (row := replace(row, same_bits=as_the_reference(model, {key: x[:1]})))
    stage.name = "run"
    kind = model.graph.outputs[0].type
    ours = np.stack([reals(next(iter(model({key: one[None]}).values())), kind) for one in x])
    yield (row := replace(row, sqnr=sqnr_db(ours, wanted)))
    if peer:
        stage.name = "onnxruntime"
        theirs = peer_outputs(subject.module, calibration, x)
        yield replace(row, peer=sqnr_db(theirs.reshape(wanted.shape), wanted))


def as_the_reference(model: Any, feeds: Any) -> bool:
    """Whether every output of a library is what `irc.evaluate` says, to the last bit."""
    wanted = irc.compile(model.graph, backend="reference")(feeds)
    found = model(feeds)
    return all(np.array_equal(found[name], array) for name, array in wanted.items())


def reals(found: Any, kind: Any) -> Floats:
    """What integers stand for: they come where integers go in, as with tokens."""
    if found.dtype.kind == "f":
        return found  # type: ignore[no-any-return]
    made: Floats = ((found.astype(np.float64) - kind.zero) * kind.scale).astype(np.float32)
    return made


def peer_outputs(module: Any, calibration: Any, x: Any) -> Floats:
    """What onnxruntime's own integers give, by its static quantizer's defaults (QDQ, U8S8)."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        export_example(module, calibration[:1], folder / "model.onnx")
        task = Task("model", folder / "model.onnx", "input", calibration[:1].shape, calibration)
        runner = OnnxRuntime("onnxruntime-u8s8", "u8")
        runner.load(task, runner.build(task, folder))
        rows = [next(iter(runner.run(feed).values())) for feed in task.feeds(x)]
    return np.stack(rows)


def first(results: Any) -> Floats:
    """The first tensor of a result."""
    pytree = importlib.import_module("torch.utils._pytree")
    array: Floats = pytree.tree_leaves(results)[0].numpy()
    return array


def kernels(graph: Any) -> int:
    """How many functions the library calls."""
    return sum(v.op == "kernel" for v in graph.order)


def row_of(source: str, name: str, *, peer: bool = False) -> Row:
    """Everything that is found out about one architecture; no error escapes."""
    stage, row = Stage(), Row(name, state=code_state())
    try:
        subject = SOURCES[source][0](name)
        for row in measured(name, subject, stage, peer=peer):  # noqa: B007
            pass
    except Exception as error:  # whatever stops it is the finding
        return replace(row, failed=f"{stage.name}: {type(error).__name__}: {error}")
    return row


def in_process(source: str, name: str, limit: float, *, peer: bool) -> Row:
    """`row_of` in a process of its own."""
    command = [sys.executable, "-m", "bench.torch_zoo", "--one", source, name]
    command += ["--peer"] if peer else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Row(name, failed=f"took longer than {limit:g} s", state=code_state())
    if done.returncode:
        return Row(name, failed=done.stderr.strip()[-300:], state=code_state())
    return Row(**json.loads(done.stdout.splitlines()[-1]))


# ---------------------------------------------------------------- all of them


def run(source: str, names: Iterable[str], table: Table, given: argparse.Namespace) -> None:
    """Each that is not in the table yet, in turn; rows are printed as they come."""
    for name in names:
        if table.measured(source, name, peer=given.peer, any_state=given.keep):
            continue
        start = time.perf_counter()
        row = in_process(source, name, given.limit, peer=given.peer)
        row = replace(row, peer=row.peer or theirs_of(table, source, name))
        table.add(source, row)
        seconds = time.perf_counter() - start
        print(f"{' | '.join(cells(row))} {seconds:.0f} s", file=sys.stderr, flush=True)
        if given.write:
            write(table, given.write)


def theirs_of(table: Table, source: str, name: str) -> float | None:
    """The peer's number that was measured before: it does not depend on our code."""
    known = table.of(source).get(name)
    return known.peer if known else None


def write(table: Table, document: Path) -> None:
    """All rows, in the order of the lists."""
    rows = {
        source: [found[n] for n in names if n in (found := table.of(source))]
        for source, (_, names) in SOURCES.items()
    }
    write_document(document, rows, TITLES)


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = argparse.ArgumentParser(prog="python -m bench.torch_zoo", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    made.add_argument("--source", choices=SOURCES, help="default: all")
    made.add_argument("--limit", type=float, default=600.0, help="seconds for each")
    made.add_argument("--peer", action="store_true", help="also onnxruntime's QDQ integers")
    made.add_argument(
        "--write", type=Path, metavar="FILE.md",
        help="write the tables into this document, and the rows as JSON into its folder",
    )  # fmt: skip
    made.add_argument(
        "--keep", action="store_true", help="keep rows of other states of the code, too"
    )
    made.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Print a table for each source; the exit status is 0 even if architectures fail."""
    given = parser().parse_args()
    if given.one:
        one_thread()
        print(json.dumps(asdict(row_of(*given.one, peer=given.peer))))
        return 0
    table = Table(given.write.with_suffix("") / "zoo.json" if given.write else None)
    for source in [given.source] if given.source else SOURCES:
        known = SOURCES[source][1]
        names = [n for n in given.names if n in known or given.source] if given.names else known
        run(source, names, table, given)
        rows = [row for n in names if (row := table.of(source).get(n))]
        if rows:
            print(f"## {TITLES[source]}\n\n{summary(rows)}\n\n{markdown(rows)}\n")
    if given.write:
        write(table, given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
