"""The log and the store inside one machine: Tansu for Kafka, chDB for ClickHouse.

Only `broker up` and the tests start these. Everything else is given a Kafka bootstrap address
and a ClickHouse URL and cannot tell the difference, so nothing outside this package may import
from it but the composition root.

Entry points
------------
`tansu.Tansu` : a Kafka-protocol log in memory; ``await log.start(); log.bootstrap``
`store.ChdbServer` : ClickHouse's HTTP interface over chDB; ``await store.start(); store.url``
`accounts.Account`, `accounts.AnalystLimits` : who may ask the store, and how much at once
"""
