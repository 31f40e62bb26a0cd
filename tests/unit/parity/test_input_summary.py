"""What a log may say of a client's inputs."""

from __future__ import annotations

import json

import numpy as np

from triton_router.parity.input_summary import in_words, summary


def test_numbers_are_told_by_their_statistics() -> None:
    """Shape, type, extremes and mean of the finite elements; NaN and infinities are counted."""
    shown = summary({"x": np.array([[1.0, np.nan, 3.0, np.inf]], np.float32), "n": np.array([2, 4], np.int32)})
    assert shown["x"] == {
        "shape": [1, 4],
        "dtype": "float32",
        "nan": 1,
        "inf": 1,
        "min": 1.0,
        "max": 3.0,
        "mean": 2.0,
    }
    assert shown["n"] == {"shape": [2], "dtype": "int32", "min": 2.0, "max": 4.0, "mean": 3.0}
    json.dumps(shown)


def test_of_a_text_nothing_is_told_but_its_length() -> None:
    """No value of a string leaves the process."""
    texts = {"text": np.array([[b"secret"], ["pässword"]], np.object_)}
    told = json.dumps(summary(texts)) + in_words(texts)
    assert summary(texts)["text"]["length"] == {"min": 6.0, "max": 9.0, "mean": 7.5}
    assert "secret" not in told
    assert "ssword" not in told


def test_words_fit_a_line() -> None:
    """One line for all inputs, empty and enormous ones included."""
    line = in_words(
        {
            "x": np.array([[1e308, 1e308, np.nan]]),
            "empty": np.zeros((0, 4), np.float32),
            "none": np.full(3, np.nan, np.float32),
            "text": np.array([b"ab"], np.object_),
        }
    )
    assert line == (
        "x float64[1, 3] 1e+308 to 1e+308, mean 1e+308, 1 NaN; empty float32[0, 4]; none float32[3], 3 NaN; "
        "text BYTES[1] length 2 to 2, mean 2"
    )
