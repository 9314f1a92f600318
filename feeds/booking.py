"""From a record on the log to the book: the one way in, for gateways and for replays alike.

A gateway notes which records moved its book, and a replay takes in the same ones through the
same door; so whatever moves a book must come through here.
"""

from __future__ import annotations

from bidding.book import MarketBook
from feeds.codec import Record
from feeds.market_records import (
    AskRecord,
    CalibrationRecord,
    PriceRecord,
    QuoteRecord,
    SeasonRecord,
    SkillRecord,
)
from feeds.topics import PRICES, QUOTES, SEASONS, SKILLS, Topic

BOOKED: tuple[Topic, ...] = (QUOTES, SKILLS, PRICES, SEASONS)
"""Topics whose records can move a book."""


def take(book: MarketBook, record: Record | None) -> bool:
    """Take in what moves the book; False when it moved nothing (older, unknown, held back)."""
    if isinstance(record, QuoteRecord):
        return book.apply_quote(record.quote)
    if isinstance(record, CalibrationRecord):
        return book.apply_calibration(record.calibration)
    if isinstance(record, SkillRecord):
        return book.apply_skill(record.skill)
    if isinstance(record, PriceRecord) and not record.quarantined:
        if record.withdrawn:
            return book.withdraw(record.offer)
        row = book.offers.row_of.get(record.offer)
        if row is None or (book.prices(row) == record.prices and book.is_sold(row)):
            return False
        return book.apply_prices(record.offer, record.prices)
    if isinstance(record, AskRecord):
        return book.apply_ask(record.offer, record.ask())
    if isinstance(record, SeasonRecord):
        return book.apply_season(record.offer, *record.seasons())
    return False
