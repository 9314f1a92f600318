"""Which log is this? Offsets mean something only within one incarnation of the log.

A real Kafka's incarnation is its cluster id, which never changes. The embedded log lives in
memory, is empty after every start, and is started with a new uuid as its cluster id; so one
metadata request answers the question for both.

The trap this guards against, measured on Tansu: clients reconnect to a restarted log without a
word; a fetch past the end is no error but silence, a reader at offset 12 of the old log goes on
at offset 12 of the new one, and writes to topics that do not exist yet are acknowledged. Hence
the rule of every reader and writer here: *look after*. If the incarnation is still the known one
after an answer, the answer came from it, because a log never becomes an earlier one again.
"""

from __future__ import annotations

from aiokafka import AIOKafkaClient
from aiokafka.protocol.metadata import MetadataRequest

from feeds.errors import LogUnavailable
from feeds.kafka import KafkaSettings, log_errors


class LogWatch:
    """Asks for the log's incarnation over a connection of its own, kept open.

    Cost: one metadata request for no topic at all, 0.3 ms on loopback.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: AIOKafkaClient | None = None

    async def current(self) -> str:
        """The incarnation now.

        Raises
        ------
        LogUnavailable
            The log does not answer.
        """
        with log_errors(f"incarnation of {self._settings.bootstrap}"):
            if self._client is None:
                client = AIOKafkaClient(**self._settings.client_options())
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            node = self._client.get_random_node()
            if node is None:
                raise LogUnavailable(f"{self._settings.bootstrap} names no broker")
            answer = await self._client.send(node, MetadataRequest([], False))
        if not answer.cluster_id:
            raise LogUnavailable(f"{self._settings.bootstrap} does not say which log it is")
        return str(answer.cluster_id)

    async def close(self) -> None:
        """Give the connection back. Harmless when there is none."""
        if self._client is not None:
            await self._client.close()
            self._client = None


async def incarnation(settings: KafkaSettings) -> str:
    """The incarnation of the log at `settings.bootstrap`, asked once."""
    watch = LogWatch(settings)
    try:
        return await watch.current()
    finally:
        await watch.close()
