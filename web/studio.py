"""What all sessions share: the operator's choices, and where their models come from."""

from dataclasses import dataclass

from realtime.pool import ModelPool
from web.feed import OpenSource
from web.virtualcam import VirtualCamera


@dataclass(frozen=True)
class Studio:
    """target: the photo a session begins with, a path or a portrait's name; source: what drives it until the browser's
    camera does; sessions: how many people at once; mark: whether results carry the word "synthetic"; asked: the engine
    and precision the operator asked for, empty for the best; virtual_camera: where the first person's result goes, too.
    """

    target: str
    source: str
    sessions: int
    mark: bool
    asked: str
    open_source: OpenSource
    pool: ModelPool
    virtual_camera: VirtualCamera | None = None
