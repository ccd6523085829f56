"""Messages between a process and its worker: a length, then named arrays in numpy's own format, without pickle."""

from __future__ import annotations

import io
import json
import struct
from typing import Any, BinaryIO

import numpy as np
import scipy

from encoders.linear_model import Direction, LinearModel
from verifier.solvers.base import IntegerSettings, Solution, Termination

# Arrays by name, and the other values.
Frame = tuple[dict[str, np.ndarray], dict[str, Any]]
ENDS = ("row_lower", "row_upper", "col_lower", "col_upper")
_LENGTH = struct.Struct(">Q")
_TEXT = "json"


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Write one message: arrays by name, and values that JSON can hold."""
    arrays, values = frame
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(values, default=str).encode(), dtype=np.uint8)
    np.savez(buffer, **{**arrays, _TEXT: text})  # type: ignore[arg-type]
    content = buffer.getbuffer()
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_frame(stream: BinaryIO, most_bytes: int | None = None) -> Frame:
    """Return (arrays, values) of the next message; EOFError where the stream ends, ValueError for anything else.

    most_bytes: a longer message is refused before it is read.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if most_bytes is not None and length > most_bytes:
        raise ValueError(f"a message of {length:,} bytes, where at most {most_bytes:,} can be meant")
    try:
        with np.load(io.BytesIO(_exactly(stream, length)), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        values = json.loads(arrays.pop(_TEXT).tobytes())
    except EOFError:
        raise
    except Exception as error:  # numpy, zipfile and json each raise their own
        raise ValueError(f"a message that cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(values, dict):
        raise ValueError("a message whose values are no object")
    return arrays, values


def request_frame(model: LinearModel, seconds: float, settings: IntegerSettings, number: int) -> Frame:
    """Return the message that asks for a solve."""
    arrays = {"cost": model.cost, "integer": model.integer, **{name: getattr(model, name) for name in ENDS}}
    arrays |= {"data": model.A.data, "indices": model.A.indices, "indptr": model.A.indptr}
    if settings.start is not None:
        arrays["start"] = settings.start
    return arrays, {
        "number": number, "seconds": seconds, "direction": str(model.direction), "tolerance": settings.tolerance,
        "nodes": settings.nodes, "target": settings.target, "gap": settings.gap,
    }  # fmt: skip


def read_request(frame: Frame) -> tuple[LinearModel, float, IntegerSettings]:
    """Return (model, seconds, settings) of a request."""
    arrays, values = frame
    shape = (len(arrays["row_lower"]), len(arrays["cost"]))
    A = scipy.sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    row_lower, row_upper, col_lower, col_upper = (arrays[name] for name in ENDS)
    direction = Direction(values["direction"])
    model = LinearModel(
        arrays["cost"], A, row_lower, row_upper, col_lower, col_upper, direction, arrays["integer"]
    )  # fmt: skip
    settings = IntegerSettings(
        values["tolerance"], values["nodes"], values["target"], arrays.get("start"), values["gap"]
    )
    return model, values["seconds"], settings


def answer_frame(solution: Solution, number: int) -> Frame:
    """Return the message that answers a request."""
    parts = {"primal": solution.primal, "row_dual": solution.row_dual, "ray": solution.ray}
    arrays = {name: values for name, values in parts.items() if values is not None}
    return arrays, {
        "number": number, "termination": str(solution.termination), "bound": float(solution.bound),
        "stats": solution.stats,
    }  # fmt: skip


def read_answer(frame: Frame, number: int) -> Solution:
    """Return the solution in an answer; ValueError if it is none, or belongs to another request."""
    arrays, values = frame
    try:
        if values["number"] != number:
            raise ValueError(f"an answer to request {values['number']} where {number} was asked")
        bound = values["bound"]
        if not isinstance(bound, float):
            raise ValueError(f"a bound that is no number: {bound!r}")
        termination, stats = Termination(values["termination"]), dict(values["stats"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"an answer without what belongs to one ({error})") from error
    primal, row_dual, ray = (arrays.get(name) for name in ("primal", "row_dual", "ray"))
    return Solution(termination, primal, row_dual, bound, stats, ray)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("the stream ended")
    return content
