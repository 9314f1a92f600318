"""The log's address and manners: settings, Kafka's errors in our words, topics made from our list.

`producer.py` and `consumer.py` speak to the log; this file holds what both need. The one idea:
nothing above `feeds/` ever sees an aiokafka exception. Each is either `LogUnavailable` (time may
heal it) or `LogRefused` (only a person can), by an explicit table; a test walks `aiokafka.errors`
and fails on one that is missing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ssl import SSLContext, create_default_context
from typing import Annotated, Any, Final, Literal, NamedTuple

from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from msgspec import Meta, Struct

from feeds.codec import MAX_RECORD_BYTES
from feeds.errors import FeedError, LogRefused, LogUnavailable
from feeds.topics import TOPICS, Topic

MAX_MESSAGE_BYTES: Final = MAX_RECORD_BYTES + 64 * 1024  # a record, its key and the batch header
_ALREADY_EXISTS: Final = 36

PositiveInt = Annotated[int, Meta(ge=1)]


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the log.

    `volatile` says that the log lives in memory and is a new one after every restart (the
    embedded Tansu): then every batch read or written is followed by a look at the log's
    incarnation. `idempotent` is for real Kafka; Tansu refuses it. A request unanswered for
    `request_timeout_ms` is given up and repeated. `session_timeout_ms` is how long a dead member
    keeps its partitions (Tansu also waits half of it before a group first settles).
    `max_partitions` bounds a topic's partitions below what `feeds.topics` says: a market on one
    machine needs no more than one, and every partition costs reads and inserts of its own.
    `hold_file` is what writers share while the log may be replaced under them (`feeds.hold`).
    """

    bootstrap: str = "127.0.0.1:9092"
    client_id: str = "model-market-broker"
    volatile: bool = False
    hold_file: str = ""
    idempotent: bool = True
    compression: Literal["none", "gzip"] = "none"
    batch_bytes: Annotated[int, Meta(ge=1024, le=MAX_MESSAGE_BYTES)] = 1024 * 1024
    request_timeout_ms: Annotated[int, Meta(ge=100)] = 15_000
    fetch_max_wait_ms: PositiveInt = 20
    fetch_partition_bytes: PositiveInt = 4 * 1024 * 1024
    session_timeout_ms: Annotated[int, Meta(ge=500)] = 10_000
    rebalance_timeout_ms: Annotated[int, Meta(ge=500)] = 30_000
    replication_factor: PositiveInt = 1
    max_partitions: PositiveInt = 1024
    tls: bool = False
    ca_file: str | None = None
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""

    @classmethod
    def embedded(cls, bootstrap: str, **changes: Any) -> KafkaSettings:
        """Settings for the embedded Tansu at `bootstrap`; its groups settle in half a session."""
        defaults = {"volatile": True, "idempotent": False, "session_timeout_ms": 3_000}
        return cls(**{"bootstrap": bootstrap, **defaults, **changes})

    def partitions_of(self, topic: Topic) -> int:
        """How many partitions `topic` has on this log."""
        return min(topic.partitions, self.max_partitions)

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments every aiokafka client takes."""
        return {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": ("SASL_" if self.sasl_mechanism else "")
            + ("SSL" if self.tls else "PLAINTEXT"),
            "ssl_context": self._ssl_context(),
            "sasl_mechanism": self.sasl_mechanism or "PLAIN",
            "sasl_plain_username": self.username or None,
            "sasl_plain_password": self.password or None,
        }

    def _ssl_context(self) -> SSLContext | None:
        return create_default_context(cafile=self.ca_file) if self.tls else None


class Partition(NamedTuple):
    """One partition of one topic; equal to aiokafka's `TopicPartition` of the same values."""

    topic: str
    partition: int


class Message(NamedTuple):
    """What goes onto the log: a value under a key; None deletes a compacted topic's key."""

    topic: str
    key: bytes
    value: bytes | None

    @property
    def n_bytes(self) -> int:
        return len(self.key) + len(self.value or b"")


_e = kafka_errors

# Bad for good: wrong configuration, rights, sizes or versions. A person has to act.
REFUSED: Final[tuple[type[Exception], ...]] = (
    *(_e.IllegalStateError, _e.IllegalArgumentError, _e.IllegalOperation),
    *(_e.UnrecognizedBrokerVersion, _e.IncompatibleBrokerVersion, _e.UnsupportedVersionError),
    *(_e.AuthenticationMethodNotSupported, _e.AuthenticationFailedError),
    *(_e.UnsupportedCodecError, _e.KafkaConfigurationError, _e.UnsupportedForMessageFormatError),
    *(_e.RecordTooLargeError, _e.MessageSizeTooLargeError, _e.RecordListTooLargeError),
    *(_e.OffsetMetadataTooLargeError, _e.InvalidCommitOffsetSizeError, _e.InvalidTimestampError),
    *(_e.InvalidTopicError, _e.InvalidRequiredAcksError, _e.InvalidGroupIdError),
    *(_e.InconsistentGroupProtocolError, _e.InvalidSessionTimeoutError, _e.InvalidRequestError),
    *(_e.TopicAuthorizationFailedError, _e.GroupAuthorizationFailedError),
    *(_e.ClusterAuthorizationFailedError, _e.TransactionalIdAuthorizationFailed),
    *(_e.DelegationTokenAuthDisabled, _e.DelegationTokenNotFound),
    *(_e.DelegationTokenOwnerMismatch, _e.DelegationTokenRequestNotAllowed),
    *(_e.DelegationTokenAuthorizationFailed, _e.DelegationTokenExpired, _e.InvalidPrincipalType),
    *(_e.UnsupportedSaslMechanismError, _e.IllegalSaslStateError, _e.SaslAuthenticationFailed),
    *(_e.TopicAlreadyExistsError, _e.InvalidPartitionsError, _e.InvalidReplicationFactorError),
    *(_e.InvalidReplicationAssignmentError, _e.InvalidConfigurationError, _e.PolicyViolationError),
    *(_e.SecurityDisabled, _e.LogDirNotFound, _e.ListenerNotFound, _e.InvalidTransactionTimeout),
    *(_e.NonEmptyGroup, _e.GroupIdNotFound),
)

# Weather: dead or moving brokers, elections, rebalances, a client object past its use (we make a
# new one), and answers without a reason. The log may answer the next time.
UNAVAILABLE: Final[tuple[type[Exception], ...]] = (
    *(_e.KafkaError, _e.BrokerResponseError, _e.NoError, _e.UnknownError),
    *(_e.NoBrokersAvailable, _e.NodeNotReadyError, _e.KafkaProtocolError, _e.CorrelationIdError),
    *(_e.Cancelled, _e.TooManyInFlightRequests, _e.StaleMetadata, _e.MetadataEmptyBrokerList),
    *(_e.CommitFailedError, _e.KafkaUnavailableError, _e.KafkaTimeoutError),
    *(_e.KafkaConnectionError, _e.QuotaViolationError, _e.ConsumerStoppedError),
    *(_e.NoOffsetForPartitionError, _e.ProducerClosed, _e.ProducerFenced),
    *(_e.OffsetOutOfRangeError, _e.CorruptRecordException, _e.UnknownTopicOrPartitionError),
    *(_e.InvalidFetchRequestError, _e.LeaderNotAvailableError, _e.NotLeaderForPartitionError),
    *(_e.RequestTimedOutError, _e.BrokerNotAvailableError, _e.ReplicaNotAvailableError),
    *(_e.StaleControllerEpochError, _e.StaleLeaderEpochCodeError, _e.GroupLoadInProgressError),
    *(_e.GroupCoordinatorNotAvailableError, _e.NotCoordinatorForGroupError),
    *(_e.NotEnoughReplicasError, _e.NotEnoughReplicasAfterAppendError),
    *(_e.IllegalGenerationError, _e.UnknownMemberIdError, _e.RebalanceInProgressError),
    *(_e.NotControllerError, _e.OutOfOrderSequenceNumber, _e.DuplicateSequenceNumber),
    *(_e.InvalidProducerEpoch, _e.InvalidTxnState, _e.InvalidProducerIdMapping),
    *(_e.ConcurrentTransactions, _e.TransactionCoordinatorFenced, _e.OperationNotAttempted),
    *(_e.KafkaStorageError, _e.UnknownProducerId, _e.ReassignmentInProgress),
    *(_e.FetchSessionIdNotFound, _e.InvalidFetchSessionEpoch, _e.MemberIdRequired),
    *(OSError, TimeoutError, asyncio.TimeoutError),
)

# Refused for what the one message is, not for who sends it or when: sending it again is pointless.
REFUSED_MESSAGE: Final = (
    *(_e.RecordTooLargeError, _e.MessageSizeTooLargeError, _e.RecordListTooLargeError),
    *(_e.InvalidTimestampError,),
)

_MAPPED: Final[dict[type[Exception], type[FeedError]]] = {
    **dict.fromkeys(REFUSED, LogRefused),
    **dict.fromkeys(UNAVAILABLE, LogUnavailable),
}
CAUGHT: Final = (*REFUSED, *UNAVAILABLE)


def mapped(error: BaseException, doing: str) -> FeedError:
    """`error` of aiokafka or the socket as ours; `doing` says what was tried."""
    kinds = (_MAPPED[kind] for kind in type(error).__mro__ if kind in _MAPPED)
    kind = next(kinds, LogUnavailable)
    # Not str(error): aiokafka's own fails for its base class.
    return kind(": ".join([doing, type(error).__name__, *map(str, error.args)]))


@contextmanager
def log_errors(doing: str) -> Iterator[None]:
    """Turn every error of the log's client into `LogUnavailable` or `LogRefused`."""
    try:
        yield
    except CAUGHT as error:
        raise mapped(error, doing) from error


async def ensure_topics(settings: KafkaSettings, topics: Iterable[Topic] = TOPICS) -> None:
    """Make the topics that do not exist yet, and wait until each has its leaders.

    Raises
    ------
    LogUnavailable
        The log does not answer, or is not ready within the request timeout.
    LogRefused
        No right to make topics, or an existing topic has other partitions than ours: keys
        would then be on other partitions than readers expect.
    """
    wanted = {t.name: t for t in topics}
    admin = AIOKafkaAdminClient(**settings.client_options())
    with log_errors(f"topics at {settings.bootstrap}"):
        try:
            async with asyncio.timeout(settings.request_timeout_ms / 1e3):
                await admin.start()
                while missing := await _missing(admin, settings, wanted):
                    await _create(admin, settings, missing)
                    await asyncio.sleep(0.01)
        finally:
            await admin.close()


async def _missing(
    admin: AIOKafkaAdminClient, settings: KafkaSettings, wanted: dict[str, Topic]
) -> list[Topic]:
    """The wanted topics that are not there or not yet led."""
    ready = set()
    # Not describe_topics(wanted): asked by name, a broker may make them up with its defaults.
    known = set(await admin.list_topics()) & set(wanted)
    for found in await admin.describe_topics(list(known)) if known else []:
        name, partitions = found["topic"], found["partitions"]
        ours = settings.partitions_of(wanted[name])
        if len(partitions) != ours and partitions:
            if settings.volatile:
                # Tansu makes up a topic that a reader names before we have made it: ours it is not.
                await admin.delete_topics([name])
                continue
            raise LogRefused(
                f"topic {name} has {len(partitions)} partitions, ours has {ours};"
                " a keyed topic cannot be repartitioned in place"
            )
        if partitions and all(p["leader"] >= 0 for p in partitions):
            ready.add(name)
    return [t for t in wanted.values() if t.name not in ready]


async def _create(admin: AIOKafkaAdminClient, settings: KafkaSettings, topics: list[Topic]) -> None:
    answer = await admin.create_topics(
        [
            NewTopic(
                t.name,
                settings.partitions_of(t),
                settings.replication_factor,
                topic_configs=_configs(t),
            )
            for t in topics
        ]
    )
    for name, code, *_ in answer.topic_errors:
        if code not in (0, _ALREADY_EXISTS):
            raise kafka_errors.for_code(code)(f"creating topic {name}")


def _configs(topic: Topic) -> dict[str, str]:
    common = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    if topic.retention_s is None:
        return {**common, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
    retention_ms = str(topic.retention_s * 1000)
    return {**common, "cleanup.policy": "delete", "retention.ms": retention_ms}
