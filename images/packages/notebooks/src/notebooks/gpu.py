"""When a GPU of this server last computed.

A kernel that waits beside a loaded model is busy for Jupyter, and holds a GPU that others wait for.
NVIDIA's own library (NVML, `pynvml` in the images with a GPU) says how much of the last second or
so each GPU worked; a container sees those that it was given and no others.
"""

from datetime import UTC, datetime
from typing import Any


class GpuUse:
    """Looks at the GPUs. `library` is `pynvml`, or None where there is none."""

    def __init__(self, library: Any | None):
        self._nvml = library
        self._gpus: list[Any] = []
        if library is not None:
            try:
                library.nvmlInit()
                count = library.nvmlDeviceGetCount()
                self._gpus = [library.nvmlDeviceGetHandleByIndex(n) for n in range(count)]
            except library.NVMLError:
                self._gpus = []  # the library without a driver
        self.used: datetime | None = datetime.now(UTC) if self._gpus else None
        """The last time that one was seen at work, first the server's start; None where there is
        no GPU, or one that does not say, as a slice of a GPU (MIG) does not."""

    def look(self) -> None:
        """Note whether one works now; the sample behind it covers a second at most."""
        if self.used is None or self._nvml is None:
            return
        try:
            if any(self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in self._gpus):
                self.used = datetime.now(UTC)
        except self._nvml.NVMLError:
            self.used = None


def of_this_server() -> GpuUse:
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        return GpuUse(None)
    return GpuUse(pynvml)
