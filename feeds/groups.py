"""Consumer groups from outside: their names on a log, and how far they have come."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from feeds.kafka import KafkaSettings, Partition, log_errors


def group_on(settings: KafkaSettings, group: str, log: str) -> str:
    """The name that `group` goes by. On a volatile log it ends with the log: a member of the old
    log joins the new one before it notices (measured), and would leave the old log's offsets there
    as committed.
    """
    return f"{group}.{log}" if settings.volatile else group


async def done_by(
    settings: KafkaSettings, group: str, log: str, partitions: Iterable[Partition]
) -> dict[Partition, int]:
    """The next offset that `group` has committed in each of `partitions`, 0 where it has none:
    all before it have been dealt with. Joins nothing.

    Raises
    ------
    LogUnavailable, LogRefused
    """
    wanted = [TopicPartition(*p) for p in partitions]
    admin = AIOKafkaAdminClient(**settings.client_options())
    with log_errors(f"reading how far {group} has come"):
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(
                group_on(settings, group, log), partitions=wanted
            )
        finally:
            await admin.close()
    known = {Partition(*p): max(at.offset, 0) for p, at in found.items()}
    return {Partition(*p): known.get(Partition(*p), 0) for p in wanted}
