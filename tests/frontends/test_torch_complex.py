"""Complex tensors and Fourier transforms: torch and `evaluate` agree, in slow tests the integer
library too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.errors import ModelError
from tests.frontends.torch_peer import Function, Module, agree, nn, reals, torch

SOUND, FIELD = (2, 96), (2, 6, 10)
FILTER = torch.view_as_complex(reals(6, 6, 2, seed=7))
MIXED = torch.view_as_complex(reals(3, 10, 2, seed=8))
FILTERS = torch.view_as_complex(reals(4, 6, 3, 2, seed=6))
LOWEST = torch.view_as_complex(reals(6, 4, 3, 2, seed=9))


def turned(x: Any) -> Any:
    """Rotary positions, as Llama has them."""
    angles = torch.outer(torch.arange(6.0), torch.tensor([1.0, 0.1, 0.01, 0.3, 0.5]))
    pairs = torch.view_as_complex(x.reshape(2, 6, 5, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones(6, 5), angles)).flatten(2)


def filtered(x: Any) -> Any:
    """A product of spectra: a global filter."""
    return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * FILTER, s=(6, 10), norm="ortho")


def kept_low(x: Any) -> Any:
    """A Fourier neural operator's layer: the lowest bins mixed, the others 0."""
    bins = torch.fft.rfft(x)
    mixed = torch.zeros(2, 4, 6, dtype=torch.cfloat)
    mixed[:, :, :3] = torch.einsum("bik,iok->bok", bins[:, :, :3], LOWEST)
    return torch.fft.irfft(mixed, n=10)


FIELDS: dict[str, Callable[[Any], Any]] = {
    "rotary": turned,
    "filter": filtered,
    "operator": kept_low,
    "mixing": lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real,
    "there and back": lambda x: torch.fft.ifft(torch.fft.fft2(x, norm="forward")).imag,
    "odd": lambda x: torch.fft.irfft(torch.fft.rfft(x[..., :9]), n=9),
    "longer": lambda x: torch.fft.rfft(x, n=16).abs(),
    "centred": lambda x: torch.fft.fftshift(torch.fft.fft(x), dim=-1).abs(),
    "parts": lambda x: [torch.complex(x, 2 * x).real, torch.complex(x, x + 1).imag],
    "products": lambda x: torch.view_as_real(torch.complex(x, x + 1) @ torch.complex(x.mT, -x.mT)),
    "numbers": lambda x: torch.view_as_real(((x + 2j) * (1 - 1j) + 3 - x).conj() / 2 * 1j),
    "phases": lambda x: [torch.exp(1j * x).imag, torch.complex(x, x).to(torch.complex128).real],
    "moved": lambda x: torch.view_as_real(
        torch.cat([torch.complex(x, -x), torch.complex(x, x)[..., :4].flip(-1)], -1).mT.sum(1)
    ),
    "angle": lambda x: [
        torch.complex(x, x.flip(-1)).angle(), (torch.complex(x, x - 1) ** 2).imag
    ],
    "quotients": lambda x: torch.view_as_real(
        torch.complex(x, x + 3) / torch.complex(x + 4, x - 1) + x / torch.complex(x + 4, x)
        + 1 / torch.complex(x + 3, x - 4) + (2 - 1j) / torch.complex(x, x + 5)
    ),
    "layers": lambda x: [
        torch.nn.functional.linear(torch.complex(x, -x), MIXED, MIXED[:, 0]).abs(),
        torch.nn.functional.linear(x + 0j, MIXED).real,
        torch.nn.functional.conv1d(torch.complex(x, x + 1), FILTERS, FILTERS[:, 0, 0]).imag,
    ],
    "atan2": lambda x: torch.atan2(x, x.flip(1)) + torch.atan2(torch.tensor(0.0), x),
}  # fmt: skip

def spectrogram(x: Any, **options: Any) -> Any:
    return torch.stft(x, 16, return_complex=True, **options)


def enhanced(x: Any) -> Any:
    """A mask on the spectrum, as denoisers make it, and back to sound."""
    window = torch.hann_window(16)
    bins = spectrogram(x, hop_length=8, window=window)
    return torch.istft(bins * bins.abs().sigmoid(), 16, 8, window=window, length=96)


SOUNDS: dict[str, Callable[[Any], Any]] = {
    "power": lambda x: spectrogram(x, hop_length=8, window=torch.hann_window(16)).abs().pow(2),
    "plain": lambda x: spectrogram(x).abs(),
    "constant edges": lambda x: spectrogram(x, pad_mode="constant", normalized=True).abs(),
    "one sound": lambda x: spectrogram(x[0], center=False, onesided=False).abs(),
    "short window": lambda x: torch.view_as_real(
        spectrogram(x, win_length=10, window=torch.hamming_window(10))
    ),
    "enhanced": enhanced,
    "to the end": lambda x: torch.istft(spectrogram(x, center=False), 16, center=False),
}  # fmt: skip

CASES = {**{k: (f, FIELD) for k, f in FIELDS.items()}, **{k: (f, SOUND) for k, f in SOUNDS.items()}}


@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize(("functions", "shape"), [(FIELDS, FIELD), (SOUNDS, SOUND)])
def test_torch_and_evaluate_agree(functions: dict[str, Any], shape: tuple[int, ...]) -> None:
    agree(lambda x: [f(x) for f in functions.values()], reals(*shape))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize("case", CASES)
def test_the_integer_library_follows(case: str) -> None:
    function, shape = CASES[case]
    module, x = Function(function), reals(*shape)
    graph = irc.from_torch(module, x)
    feed = {graph.inputs[0].name: x.numpy()}
    model = irc.compile(irc.quantize(graph, calibration=[feed]))
    found, expected = model(feed), irc.compile(model.graph, backend="reference")(feed)
    wanted = torch.utils._pytree.tree_leaves(module(x))
    for name, tensor in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(found[name], expected[name])
        noise = np.sum((found[name] - tensor.numpy()) ** 2)
        assert noise <= 0.01 * np.sum(tensor.numpy() ** 2), name  # 20 dB


class Keywords(Module):
    """Words recognised on a logarithmic mel spectrogram that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("mel", reals(33, 8).abs())
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )

    def forward(self, sound: Any) -> Any:
        bins = torch.stft(sound, 64, 32, window=self.window, return_complex=True)
        power = bins.abs().pow(2.0)
        mel = torch.matmul(power.transpose(-1, -2), self.mel).transpose(-1, -2)
        return self.net(torch.log(mel + 1e-6).unsqueeze(1))


def test_a_network_with_its_spectrogram() -> None:
    torch.manual_seed(0)
    module, sounds = Keywords().eval(), reals(8, 1, 512) * 0.2
    graph = agree(module, sounds[0])
    feeds = [{"sound": x.numpy()} for x in sounds]
    model = irc.compile(irc.quantize(graph, calibration=feeds), backend="reference")
    found = np.concatenate([model(feed)["output"] for feed in feeds])
    with torch.no_grad():
        wanted = torch.cat([module(x) for x in sounds]).numpy()
    noise, power = np.sum((found - wanted) ** 2), np.sum((wanted - wanted.mean(0)) ** 2)
    assert noise < 0.1 * power  # 10 dB of what tells the sounds apart


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "result": (torch.fft.fft, r"'output' is complex.* return torch\.view_as_real of it"),
    "function": (lambda x: torch.fft.fft(x).log().real, "log.*their real and imaginary parts"),
    "window": (
        lambda x: torch.stft(x, 8, window=x[0, :8], return_complex=True).abs(),
        "'window' .* computed at run time",
    ),
    "gaps": (
        lambda x: torch.istft(torch.stft(x, 8, 8, center=False, window=torch.hann_window(8),
                                         return_complex=True), 8, 8, center=False,
                              window=torch.hann_window(8)),
        "leave gaps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:A window was not provided")
def test_refusal(case: str) -> None:
    function, message = REFUSED[case]
    with pytest.raises(ModelError, match=message):
        irc.from_torch(Function(function), (reals(2, 64),))


def test_complex_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match=r"is complex.*join them by torch\.complex"):
        irc.from_torch(Function(lambda x: x.abs()), torch.complex(reals(4), reals(4)))
    agree(lambda a, b: torch.complex(a, b).abs(), reals(4), reals(4, seed=1))
