"""Which feeds are polled: the settings.

A feed is a status page or a price list. Those that ship with the broker are fetched only when
`enabled` names them; `own` adds feeds, or puts another address in place of one that ships.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from feeds.catalogue.judge import JudgeSettings
from feeds.errors import FeedError
from feeds.fetch import FetchSettings
from feeds.status.pages import StatusPage

Kind = Literal["status", "prices"]
PollS = Annotated[float, Meta(ge=0.05, le=86_400)]


class Feed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feed. `provider` is the market's id; for prices it may be empty, where the list names
    providers itself. `poll_s` 0: as often as all. The patterns are those of `StatusPage`.
    """

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    of: Kind = "status"
    format: str = ""
    url: str = ""
    provider: str = ""
    poll_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    models: dict[str, list[str]] = {}

    @property
    def page(self) -> StatusPage:
        """The feed as a status page."""
        return StatusPage(
            id=self.id.lower(),
            format=self.format,
            url=self.url,
            provider=self.provider,
            only=self.only,
            ignore=self.ignore,
            models=self.models,
        )


class FeedSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is polled and how. `jitter` spreads polls by that share of the pause between them."""

    enabled: tuple[str, ...] = ()
    own: tuple[Feed, ...] = ()
    status_poll_s: PollS = 60.0
    prices_poll_s: PollS = 900.0
    jitter: Annotated[float, Meta(ge=0, le=0.9)] = 0.2
    report_s: PollS = 15.0
    id: str = "feeds"
    fetch: FetchSettings = field(default_factory=FetchSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)


class UnknownFeed(FeedError):
    """No feed of that name, or one that cannot be polled as it is configured."""
