"""How long a clip is by what its header says, which each format says in its own way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av


def duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds from the first frame to the end of the last, as the header has it; 0 where it does not say."""
    first = float((stream.start_time or 0) * (stream.time_base or 0))
    # What these state is the time stamp of the end; what others do is a length, the container's from its own start.
    ends = container.format.name in ("matroska,webm", "asf")
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base) - (first if ends else 0.0))
    # Matroska and WebM state a stream's own end in a tag; the container's is that of the sound where that is longer.
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        ends = "libmatroska" not in container.metadata.get("ENCODER", "")  # mkvmerge's tag is a length
        return max(0.0, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - (first if ends else 0.0))
    start = 0.0 if ends else (container.start_time or 0) / 1e6
    return max(0.0, container.duration / 1e6 - (first - start)) if container.duration else 0.0
