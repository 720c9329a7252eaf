"""Speech by espeak-ng, with pauses and noise; short frames of it."""

import functools
import io
import shutil
import subprocess
import wave

import numpy as np

from bench.cache import ObtainError
from bench.images import Floats

RATE = 16_000
SENTENCES = (
    "the quick brown fox jumps over the lazy dog",
    "a compiler turns one language into another, and sometimes into a better one",
    "she sells sea shells by the sea shore, seventeen at a time",
    "please call me back tomorrow afternoon at half past four",
    "integers are exact, and the same on every machine",
    "how much wood would a woodchuck chuck if a woodchuck could chuck wood",
)
VOICES = ("en", "en+f3", "en+m5", "en+f2", "en+m3")


def noisy_speech(seconds: float, seed: int) -> Floats:
    """Return sentences with pauses between, at 16 kHz, in noise of 5 to 25 dB: f32[samples]."""
    rng = np.random.default_rng(seed)
    clean = _sentences(seconds, rng)
    level = float(np.sqrt(np.mean(clean**2))) * 10 ** (-rng.uniform(5, 25) / 20)
    noise = np.cumsum(rng.normal(0, 1, len(clean)))  # brown, then some white
    noise = noise - np.convolve(noise, np.ones(64) / 64, "same")
    noise = noise / noise.std() + 0.3 * rng.normal(0, 1, len(clean))
    return np.asarray(np.clip(clean + level * noise, -1, 1), np.float32)


def clean_speech(seconds: float, seed: int) -> Floats:
    """Return what `noisy_speech` of that seed is without its noise: f32[samples]."""
    return _sentences(seconds, np.random.default_rng(seed))


def _sentences(seconds: float, rng: np.random.Generator) -> Floats:
    parts: list[Floats] = []
    while sum(map(len, parts)) < seconds * RATE:
        sentence, voice = rng.choice(SENTENCES), rng.choice(VOICES)
        speed = int(rng.integers(130, 200))
        loudness = rng.uniform(0.2, 0.9)
        parts.append(loudness * spoken(str(sentence), str(voice), speed))
        parts.append(np.zeros(int(rng.uniform(0.3, 1.5) * RATE), np.float32))
    return np.concatenate(parts)[: int(seconds * RATE)]


@functools.cache
def spoken(sentence: str, voice: str, speed: int) -> Floats:
    """Return one sentence at 16 kHz; an ObtainError says how to get espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise ObtainError("speech is made with espeak-ng: install it (apt-get install espeak-ng)")
    command = [program, "--stdout", "-v", voice, "-s", str(speed), sentence]
    made = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(made)) as file:
        rate, raw = file.getframerate(), file.readframes(len(made))
    samples = np.frombuffer(raw, np.int16).astype(np.float32) / 32768
    count = int(len(samples) * RATE / rate)
    times = np.arange(count) * rate / RATE
    return np.asarray(np.interp(times, np.arange(len(samples)), samples), np.float32)


def frames(signal: Floats, length: int, step: int) -> Floats:
    """Return overlapping frames: f32[count, length]."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, length)[::step]
    return np.ascontiguousarray(windows)
