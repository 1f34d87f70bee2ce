"""The OpenVINO engine: the fastest on CPUs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullyconv.engines._conversion import converted, default_cache, fingerprint, kept, openvino_core
from fullyconv.engines._graph import DeployedGraph, least_side
from fullyconv.engines._int8 import digest, divide, quantised, require_calibration
from fullyconv.engines._runner import RunOptions, finished, require_fit
from fullyconv.engines._torch import answer_in_torch
from fullyconv.errors import FullyconvError, MachineError
from fullyconv.models import SegmentationModel

_SPARE = 1  # windows that wait, ready, for the next free stream
_CORES_PER_STREAM = 2  # with one each, windows of a megapixel crowd each other out of the cache


class OpenVINOEngine:
    """A `Runner` in OpenVINO, on the CPU.

    Parameters
    ----------
    model
        Left as it is.
    options
        Of windows of any size, those with a side below `least_side` go through torch.
        ``calibration`` is what int8 is fitted to.

    Raises
    ------
    ConfigError
        OpenVINO cannot run the network at this size, or int8 has too few windows to be fitted to.
    MachineError
        OpenVINO is not installed, or nncf for int8.

    Notes
    -----
    OpenVINO divides the cores into streams, each of which computes one window; one more window waits.
    A window that comes alone has all cores.
    """

    engine = "openvino"

    def __init__(self, model: SegmentationModel, options: RunOptions) -> None:
        if find_spec("openvino") is None:
            raise MachineError("no openvino", "the engine asked for", "pip install openvino")
        self.precision, self.answer, self.notes = options.precision, options.answer, options.notes
        self._model, self._size = model, options.size
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bf16" else "f32",
        }
        if options.size is None:
            # Else what it made for every size is kept: 2 MB more with each, and no faster.
            self._config["CPU_RUNTIME_CACHE_CAPACITY"] = "0"
        if options.threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = options.threads
        self._graph = openvino_graph(model, options)
        _, cores = openvino_core().get_property("CPU", "RANGE_FOR_STREAMS")
        self.workers = max(1, (options.threads or cores) // _CORES_PER_STREAM)
        self.in_flight = self.workers + _SPARE
        self._streams: dict[int, _Streams] = {}  # compiled when they are first needed

    def run(self, windows: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Answer windows, in the order given; see `Runner.run`."""
        source = iter(windows)
        first = list(islice(source, 2))
        streams = self._of(self.workers if len(first) > 1 else 1)
        waiting: deque[Callable[[], NDArray[Any]]] = deque()
        try:
            for window in chain(first, source):  # pulled here, while those that wait are computed
                waiting.append(self._start(window, streams))
                if len(waiting) == self.in_flight:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            for answer in waiting:  # nothing goes on behind the caller's back
                with suppress(FullyconvError):
                    answer()

    def close(self) -> None:
        """Let go of the compiled network."""
        self._streams.clear()
        self._graph = None

    def _of(self, count: int) -> _Streams:
        if count not in self._streams:
            self._streams[count] = _Streams(self._graph, count, self._config)
        return self._streams[count]

    def _start(self, window: NDArray[Any], streams: _Streams) -> Callable[[], NDArray[Any]]:
        """Begin to compute a window; the result waits for its answer."""
        require_fit(window, self._model, self._size)
        if self._size is None and min(window.shape[:2]) < least_side(self._model):
            return partial(answer_in_torch, self._model, self.answer, window)
        import openvino

        request = streams.take()
        request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(window)[None]))
        request.start_async()
        return partial(self._answer, request, streams)

    def _answer(self, request: Any, streams: _Streams) -> NDArray[Any]:
        try:
            request.wait()
        except RuntimeError as error:
            raise FullyconvError(
                f"OpenVINO failed to compute a window ({error})",
                "an answer",
                "take smaller windows (--tile), or --engine torch",
            ) from error
        # A copy: the request's own memory is written again by its next window.
        answer = finished(request.get_output_tensor(0).data[0].copy(), self._model, self.answer)
        streams.idle.append(request)
        return answer


class _Streams:
    """A graph compiled to compute so many windows at once, and its requests that compute nothing now."""

    def __init__(self, graph: Any, count: int, config: dict[str, Any]) -> None:
        self._compiled: Any = openvino_core().compile_model(graph, "CPU", config | {"NUM_STREAMS": count})
        self.idle: list[Any] = []

    def take(self) -> Any:
        return self.idle.pop() if self.idle else self._compiled.create_infer_request()


def openvino_graph(model: SegmentationModel, options: RunOptions) -> Any:
    """Return a network as an ``openvino.Model``, from the cache where it is there.

    Raises
    ------
    ConfigError
        OpenVINO cannot run the network at this size, or int8 has too few windows to be fitted to.
    MachineError
        For int8: nncf is not installed.
    """

    def cached(make: Callable[[], Any], *fitted: str) -> Any:
        key = fingerprint(model, options.answer, options.size, *fitted)
        return kept(None if key is None else (options.cache or default_cache()) / key, make)

    def exact() -> Any:
        return cached(lambda: converted(DeployedGraph.copied(model, options.answer), options.size))

    if options.precision != "int8":
        return exact()
    require_calibration(options.calibration)
    windows, _ = divide(options.calibration)
    return cached(lambda: quantised(exact(), windows), digest(windows))
