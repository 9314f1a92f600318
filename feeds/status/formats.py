"""Every format of status pages by name, and the parser that reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from feeds.errors import BadRecord
from feeds.status import (
    better_stack,
    cloud_rss,
    google_cloud,
    instatus,
    statuspage,
    syndicated,
)
from feeds.status.incident import StatusSheet

FORMATS: Final[dict[str, Callable[[bytes], StatusSheet]]] = {
    statuspage.NAME: statuspage.parse,
    syndicated.NAME: syndicated.parse,
    google_cloud.NAME: google_cloud.parse,
    cloud_rss.AWS: cloud_rss.parse_aws,
    cloud_rss.AZURE: cloud_rss.parse_azure,
    instatus.NAME: instatus.parse,
    better_stack.NAME: better_stack.parse,
}


def parse(name: str, body: bytes) -> StatusSheet:
    """The page in a body of the named format.

    Raises
    ------
    BadRecord
        It is not; nothing else, whatever the bytes are.
    """
    read = FORMATS.get(name)
    if read is None:
        raise BadRecord(f"no format {name!r}; there are {', '.join(FORMATS)}")
    return read(body)
