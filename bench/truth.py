"""Samples of which it is known what a network should say: text, bytes, words, speech."""

import ast
import itertools
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench import audio
from bench.cache import ObtainError
from bench.images import Floats, Pixels

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WORDS = (
    "harbour", "Tuesday", "0472", "lantern", "MAPLE", "oxygen", "Berlin", "3.14", "quartz", "moss",
    "Nine", "gallop", "KITE", "zebra", "1999", "Jupiter", "wharf", "fuzzy", "Dockyard", "70%",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A rendered line u8[h, w, 3], and what it says."""

    pixels: Pixels
    text: str


def written_lines(count: int, height: int, width: int, seed: int, words: int) -> list[Line]:
    """Seeded lines of `words` words, dark on light or light on dark, as wide as there is room; of
    none, four to six letters and digits each in its place, as captchas have them."""
    rng = np.random.default_rng(seed)
    return [_line(rng, height, width, words) for _ in range(count)]


def _line(rng: np.random.Generator, height: int, width: int, words: int) -> Line:
    if words:
        text = " ".join(str(w) for w in rng.choice(WORDS, size=words, replace=False))
    else:
        text = "".join(rng.choice(list(LETTERS), size=int(rng.integers(4, 7))))
    light, dark = rng.integers(170, 256, 3), rng.integers(0, 90, 3)
    image = Image.new("RGB", (width, height), tuple(int(c) for c in light))
    size = height * rng.uniform(0.5, 0.75)
    font = ImageFont.load_default(size=int(size))
    size *= min(1.0, (width - height // 4) / font.getlength(text))
    font = ImageFont.load_default(size=int(size))
    place = (height // 8 + int(rng.integers(4)), int((height - 1.2 * size) / 2))
    ImageDraw.Draw(image).text(place, text, fill=tuple(int(c) for c in dark), font=font)
    noise = rng.normal(0, rng.uniform(0, 12), (height, width, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Line(255 - pixels if rng.random() < 0.3 else pixels, text)


def characters(path: Path, name: str) -> list[str]:
    """The list of that name in a Python source that is only read."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            found: list[str] = ast.literal_eval(node.value)
            return found
    raise ObtainError(f"{path} has no list {name}")


def decoded(scores: Floats, alphabet: Sequence[str]) -> str:
    """What a CTC network reads: its best symbols, repetitions and blanks (0) left out; [t, n]."""
    best = [k for k, _ in itertools.groupby(scores.reshape(-1, scores.shape[-1]).argmax(-1))]
    return "".join(alphabet[int(k)] for k in best if k)


def distance(a: str, b: str) -> int:
    """How many insertions, deletions and replacements make one text of the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def characters_right(found: Sequence[str], wanted: Sequence[str]) -> float:
    """One less the share of characters that are wrong; blanks don't count."""
    pairs = [(f.replace(" ", ""), w.replace(" ", "")) for f, w in zip(found, wanted, strict=True)]
    return 1 - sum(distance(f, w) for f, w in pairs) / sum(len(w) for _, w in pairs)


# ---------------------------------------------------------------- bytes

KINDS: Mapping[str, str] = {
    ".py": "python", ".pyc": "pythonbytecode", ".so": "elf", ".h": "c", ".html": "html",
    ".json": "json", ".npy": "npy", ".npz": "npz", ".png": "png", ".svg": "svg", ".css": "css",
    ".js": "javascript", ".onnx": "onnx", ".csv": "csv", ".gz": "gzip", ".ttf": "ttf",
    ".jpg": "jpeg", ".xml": "xml", ".md": "markdown", ".rst": "rst", ".pdf": "pdf",
}  # fmt: skip
"""Content types by what the names of files end in."""
PER_KIND = 12


@cache
def labelled_files() -> tuple[tuple[Path, str], ...]:
    """Files of the Python installation and of /usr/share with their content types, some of each."""
    found: dict[str, list[Path]] = {label: [] for label in KINDS.values()}
    folders = dict.fromkeys(sysconfig.get_path(p) for p in ("stdlib", "purelib", "include"))
    for folder in (*folders, "/usr/share"):
        for path in Path(folder).rglob("*"):
            label = KINDS.get(path.suffix)
            if label and len(found[label]) < 40 * PER_KIND and _plain(path):
                found[label].append(path)
    rng = np.random.default_rng(0)
    kept: list[tuple[Path, str]] = []
    for label, paths in found.items():
        chosen = rng.permutation(len(paths))[:PER_KIND]
        kept += [(sorted(paths)[i], label) for i in chosen]
    return tuple(kept)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and 200 < path.stat().st_size < 1 << 24


def ends_of(path: Path, length: int = 1024, block: int = 4096, padding: int = 256) -> Any:
    """The first and the last bytes of a file, blanks stripped, as Magika takes them: i32[2048]."""
    content = path.read_bytes()
    begin, end = content[:block].lstrip()[:length], content[-block:].rstrip()[-length:]
    row = np.full(2 * length, padding, np.int32)
    row[: len(begin)] = list(begin)
    row[2 * length - len(end) :] = list(end)
    return row


# ---------------------------------------------------------------- sentences

SECTIONS = ("games", "science", "sound", "python", "fonts", "mail")


@cache
def descriptions(per_section: int = 60) -> tuple[tuple[str, str], ...]:
    """First lines of what Debian's packages say of themselves, with their sections.

    Raises ObtainError where there is no apt-cache.
    """
    try:
        text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise ObtainError("sentences come from Debian's apt-cache dumpavail") from None
    found: dict[str, list[str]] = {s: [] for s in SECTIONS}
    for record in text.decode(errors="replace").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in record.splitlines() if ": " in line)
        section = lines.get("Section", "").rpartition("/")[2]
        sentence = lines.get("Description") or lines.get("Description-en") or ""
        if section in found and len(sentence) > 20:
            found[section].append(sentence)
    rng = np.random.default_rng(0)
    return tuple(
        (str(t), s)
        for s in SECTIONS
        if found[s]
        for t in rng.permutation(sorted(set(found[s])))[:per_section]
    )


def neighbours_agree(vectors: Floats, labels: Sequence[str]) -> float:
    """The share of vectors [n, k] whose nearest other vector has the same label."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = likeness.argmax(1)
    return float(np.mean([labels[i] == labels[j] for i, j in enumerate(nearest)]))


# ---------------------------------------------------------------- speech

WAKE_WORDS: Mapping[str, Sequence[str]] = {
    "alexa": ("alexa",),
    "hey_mycroft": ("hey my croft", "hey Mike roft"),
}
"""As espeak-ng must be told for them to sound right."""
SPEAKERS = ("en", "en+m5", "en+f5")
"""Whose words the float networks find."""


def wake_clips(word: str, count: int, seed: int, samples: int) -> list[tuple[Floats, bool]]:
    """Recordings, f32[samples] of i16's range, that end with a wake word or with other speech."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        said = WAKE_WORDS[word] if i % 2 else audio.SENTENCES
        phrase, speaker = str(rng.choice(said)), str(rng.choice(SPEAKERS))
        speech = audio.spoken(phrase, speaker, int(rng.choice([175, 200])))
        made.append((_recorded(speech, samples, rng), bool(i % 2)))
    return made


def _recorded(speech: Floats, samples: int, rng: np.random.Generator) -> Floats:
    """Speech that ends shortly before the recording does, in noise."""
    quiet = int(rng.integers(1000, 1800))
    part = speech[: samples - quiet]
    clip = rng.normal(0, 10 ** rng.uniform(-3.5, -2.5), samples)
    clip[samples - quiet - len(part) : samples - quiet] += rng.uniform(0.5, 0.9) * part
    return np.asarray(np.round(np.clip(clip, -1, 1) * 32767), np.float32)


def share(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """The share of equal elements."""
    return float(np.mean([f == w for f, w in zip(found, wanted, strict=True)]))


Scorer = Callable[[Sequence[Mapping[str, Any]], Any], float]
"""From the outputs of each sample, and what is known of the samples, to the share that is right."""
