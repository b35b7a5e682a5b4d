"""The thread that encodes while the next frames are rendered, and the end of a file.

Opened by `open_writer`, fed by the render loop. The invariant: the output path never holds an
incomplete file, and however a writer ends its thread has ended and its hidden files are gone.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import numpy as np

from giffusion.engine.encode.formats import Encoder, Progress, VideoSpec
from giffusion.engine.encode.place import Output, write_error
from giffusion.engine.errors import GiffusionError, RenderError
from giffusion.engine.frames import Frame, PixelFormat

MAX_BACKLOG = 64


class Writer:
    """Takes frames and makes a file of them; `open_writer` makes one.

    As a context manager it closes at the end, and aborts when an exception passes through.

    An error of the encoding thread is raised once, by the next `write` or by `close`, and ends
    the writer; what is called after that is `abort`, or nothing.
    """

    def __init__(
        self, output: Output, encoder: Encoder, spec: VideoSpec, *, keep_partial: bool = False
    ) -> None:
        self._output = output
        self._encoder = encoder
        self._spec = spec
        self._keep_partial = keep_partial
        self._partial_path: Path | None = None
        self._frames: queue.Queue[Frame | None] = queue.Queue(MAX_BACKLOG)
        self._drop = threading.Event()
        self._error: Exception | None = None
        self._num_accepted = 0
        self._num_encoded = 0
        self._closed = False
        self._thread = threading.Thread(target=self._encode, name="encode", daemon=True)
        self._thread.start()

    @property
    def encoder_name(self) -> str:
        """Name of the encoder, for what the file says about itself."""
        return self._spec.encoder.name

    @property
    def folder(self) -> Path:
        """Where the output lies, on whose disk there is room for what belongs to it."""
        return self._output.folder

    @property
    def pixel_format(self) -> PixelFormat:
        """What `write` takes frames in."""
        return self._spec.encoder.pixel_format

    @property
    def on_device(self) -> bool:
        """Whether `write` takes frames in device memory; if not, it takes arrays."""
        return self._spec.encoder.on_device

    @property
    def frames_written(self) -> int:
        """Frames that `write` has taken."""
        return self._num_accepted

    @property
    def backlog(self) -> int:
        """Frames taken and not yet encoded."""
        return self._num_accepted - self._num_encoded

    @property
    def partial_path(self) -> Path | None:
        """Where the frames of a render that ended early were kept, if they were."""
        return self._partial_path

    def write(self, index: int, frame: Frame) -> None:
        """Takes the next frame; waits only while `MAX_BACKLOG` others are not yet encoded.

        Args:
            index: its number: 0, 1, 2, …
            frame: in this writer's pixel format. An array is copied, so that the caller may reuse
                it; a frame in device memory is the writer's from now on.

        Raises:
            RenderError: the encoding thread failed; nothing is left behind.
            DiskFullError: it found no space.
            RuntimeError: a frame out of its turn or of another shape, which is the caller's bug.
        """
        self._check_frame(index, frame)
        if self._error is not None:
            self._fail(self._error)
        self._frames.put(frame.copy() if isinstance(frame, np.ndarray) else frame)
        self._num_accepted += 1

    def close(self, progress: Progress | None = None) -> None:
        """Finishes the file, reads it back and publishes it; does nothing if it has ended.

        Args:
            progress: told (frames done, frames in all) by formats with a second pass.

        Raises:
            RenderError: encoding failed, or frames are missing; nothing is left behind.
            DiskFullError: there was no space.
            OutputError: without `force`, another file appeared at the path meanwhile.
        """
        if self._closed:
            return
        try:
            self._join()
            self._check_complete()
            self._encoder.finish(progress)
            self._output.publish()
        except Exception as error:
            self._fail(error)
        except BaseException as error:
            self._abort_for(error)
            raise
        self._closed = True
        self._encoder.discard()

    def abort(self) -> Path | None:
        """Stops at once and removes what was written; does nothing if the writer has ended.

        With `keep_partial` the frames there are become a file of their own instead, unless
        encoding itself had failed.

        Returns:
            The path of that file, or None.

        Raises:
            RenderError: the frames there are could not be kept.
        """
        if self._closed:
            return self._partial_path
        self._closed = True
        try:
            if not self._keep_partial:
                self._drop.set()
            self._join()
            if self._keep_partial and self._error is None and self._num_encoded:
                self._save_partial()
        finally:
            self._drop.set()
            self._join()
            self._encoder.discard()
            self._output.discard()
        return self._partial_path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abort_for(error)

    def _encode(self) -> None:
        # Reads on after a failure, so that a caller who waits for room in the queue gets it.
        while (frame := self._frames.get()) is not None:
            if self._drop.is_set():
                continue
            try:
                self._encoder.write(frame)
            except Exception as error:
                self._error = error
                self._drop.set()
            else:
                self._num_encoded += 1

    def _join(self) -> None:
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()

    def _check_complete(self) -> None:
        if self._error is not None:
            raise self._error
        if self._num_encoded != self._spec.num_frames:
            counts = f"{self._num_encoded} of {self._spec.num_frames} frames"
            error = RenderError(f"{self._output.path}: only {counts} were written")
            self._abort_for(error)
            raise error

    def _abort_for(self, error: BaseException) -> None:
        try:
            self.abort()
        except RenderError as lost:
            # Why the render ended matters more than that its frames could not be kept.
            error.add_note(str(lost))

    def _save_partial(self) -> None:
        try:
            self._encoder.finish()
            self._partial_path = self._output.publish_beside(".partial")
        except Exception as error:
            raise write_error(error, self._output.folder, self._num_encoded) from error

    def _fail(self, error: Exception) -> NoReturn:
        self._error = error
        self.abort()
        if isinstance(error, GiffusionError):
            raise error
        raise write_error(error, self._output.folder, self._num_encoded) from error

    def _check_frame(self, index: int, frame: Frame) -> None:
        if self._closed:
            raise RuntimeError("the writer has ended: open another")
        if index != self._num_accepted or index >= self._spec.num_frames:
            raise RuntimeError(
                f"frame {index} is out of its turn: expected {self._num_accepted} "
                f"of {self._spec.num_frames}"
            )
        if isinstance(frame, np.ndarray) == self.on_device:
            place = "in device memory" if self.on_device else "an array"
            raise RuntimeError(f"frame {index} is a {type(frame).__name__}: expected {place}")
        shape = self.pixel_format.shape(self._spec.size)
        found = frame.dtype.name if isinstance(frame, np.ndarray) else "uint8"
        if tuple(frame.shape) != shape or found != "uint8":
            raise RuntimeError(
                f"frame {index} is {found}{tuple(frame.shape)}: expected uint8{shape}, "
                f"{self.pixel_format}"
            )
