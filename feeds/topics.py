"""Every topic: name, key, partitions, cleanup. The only list; infra makes topics from it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from bidding.found_tasks import root_of
from feeds import control_records as c
from feeds import market_records as m
from feeds import records as r

DAY_S: Final = 86_400


class Topic(Struct, frozen=True, kw_only=True):
    """A topic of the log. `retention_s` None means compacted: the newest record of a key stays."""

    name: str
    key: str
    partitions: int
    retention_s: int | None
    record: type[r.Written]

    @property
    def compacted(self) -> bool:
        return self.retention_s is None


def _topic(
    name: str, key: str, record: type[r.Written], retention_s: int | None, partitions: int = 4
) -> Topic:
    return Topic(name=name, key=key, partitions=partitions, retention_s=retention_s, record=record)


ATTEMPTS = _topic("market.attempts", "offer", r.AttemptRecord, 7 * DAY_S)
DECISIONS = _topic("market.decisions", "task", r.DecisionRecord, 7 * DAY_S)
FEEDBACK = _topic("market.feedback", "task", r.FeedbackRecord, 30 * DAY_S)
QUOTES = _topic("market.quotes", "offer", m.QuoteRecord, None)
SKILLS = _topic("market.skills", "task", m.SkillRecord, None)
VIEWS = _topic("market.views", "gateway", m.ViewRecord, 7 * DAY_S)
PRICES = _topic("market.prices", "offer", m.PriceRecord, None)
STATUS = _topic("market.status", "provider", m.StatusRecord, None)
SOURCES = _topic("market.sources", "source", m.SourceRecord, None, partitions=1)
NOTICES = _topic("market.notices", "offer", m.NoticeRecord, 7 * DAY_S, partitions=1)
SEASONS = _topic("market.seasons", "offer", m.SeasonRecord, None, partitions=1)
FEEDS = _topic("market.feeds", "feed", m.FeedRecord, None, partitions=1)
PROMPTS = _topic("market.prompts", "decision_id", r.PromptRecord, DAY_S)
PARAMS = _topic("control.params", "scope", c.ParamsRecord, None, partitions=1)
KEYS = _topic("control.keys", "key_id", c.KeyRecord, None, partitions=1)
CATALOGUE = _topic("control.catalogue", "key", c.CatalogueRecord, None, partitions=1)
DEAD = _topic("market.dead", "topic", r.DeadRecord, 30 * DAY_S, partitions=1)

TOPICS: Final[tuple[Topic, ...]] = (
    ATTEMPTS,
    DECISIONS,
    FEEDBACK,
    QUOTES,
    SKILLS,
    VIEWS,
    PRICES,
    STATUS,
    SOURCES,
    SEASONS,
    NOTICES,
    FEEDS,
    PROMPTS,
    PARAMS,
    KEYS,
    CATALOGUE,
    DEAD,
)
BY_NAME: Final[dict[str, Topic]] = {t.name: t for t in TOPICS}


def key_of(topic: Topic, record: r.Written) -> bytes:
    """The partitioning key of `record` on `topic`."""
    if type(record) is r.AttemptRecord:  # by far the most
        return record.offer.encode()
    if isinstance(record, m.QuoteRecord):
        return record.quote.offer.encode()
    if isinstance(record, m.CalibrationRecord):
        return f"*{record.estimator}".encode()
    if isinstance(record, c.CatalogueRecord):
        return f"catalogue/{record.digest}".encode() if record.digest else b"catalogue"
    if isinstance(record, m.AskRecord):
        return f"ask:{record.offer}".encode()
    if isinstance(record, m.PriceRecord) and record.quarantined:
        # Never under the offer's own key, where compaction would put it in place of what holds.
        return f"?{record.source}:{record.offer}".encode()
    if isinstance(record, m.StatusRecord) and record.incident_id:
        # A provider may have several incidents at once; compaction keeps the newest word of each.
        return f"{record.provider}/{record.incident_id}".encode()
    key: str = getattr(record, topic.key)
    if topic.key == "task" and not topic.compacted:
        key = root_of(key)  # one estimator sees all that tasks are found from, in order
    return key.encode()
