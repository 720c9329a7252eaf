"""Words to token numbers, as BERT's uncased models take them (WordPiece, Wu et al. 2016)."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNKNOWN, FIRST, LAST = "[UNK]", "[CLS]", "[SEP]"


@dataclass(frozen=True)
class WordPiece:
    """A vocabulary: the number of each piece; those that go on a word begin with `##`."""

    numbers: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> "WordPiece":
        """The vocabulary of a file with a piece a line."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return cls({piece: i for i, piece in enumerate(lines)})

    def pieces(self, text: str) -> list[str]:
        """The longest known pieces, from left to right."""
        plain = unicodedata.normalize("NFD", text.lower())
        kept = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        return [p for word in re.findall(r"\w+|[^\w\s]", kept) for p in self._split(word)]

    def _split(self, word: str) -> list[str]:
        found: list[str] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in self.numbers), None)
            if end is None:
                return [UNKNOWN]
            found.append(prefix + word[start:end])
            start = end
        return found

    def batch(
        self, texts: Sequence[str], length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token numbers and the mask of those that count: i64[texts, length] each."""
        ids = np.zeros((len(texts), length), np.int64)
        mask = np.zeros_like(ids)
        for i, text in enumerate(texts):
            tokens = [FIRST, *self.pieces(text)[: length - 2], LAST]
            ids[i, : len(tokens)] = [self.numbers[t] for t in tokens]
            mask[i, : len(tokens)] = 1
        return ids, mask
