"""Embeddings: each text has its own vector of length 1, the same at every provider and in every run."""

import base64
import math
import struct
from hashlib import shake_128
from typing import Any

from understudy.worker.mock.asked import Asked

DIMENSIONS = 8
"""If the request does not say; enough to distinguish texts, and short enough to read."""


def vector(text: str, dimensions: int) -> list[float]:
    raw = shake_128(text.encode("utf-8", "replace")).digest(4 * dimensions)
    numbers = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", raw)]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def embeddings_body(asked: Asked) -> dict[str, Any]:
    """The answer in the form of OpenAI's protocol or of Gemini's, which counts no tokens."""
    vectors = [vector(text, asked.dimensions or DIMENSIONS) for text in asked.texts]
    if asked.protocol == "gemini":
        return {"embeddings": [{"values": each} for each in vectors]}
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(each) if asked.as_base64 else each}
        for index, each in enumerate(vectors)
    ]
    usage = {"prompt_tokens": asked.input_tokens, "total_tokens": asked.input_tokens}
    return {"object": "list", "data": data, "model": asked.model, "usage": usage}


def _base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
