#!/bin/bash
# Runs once, when ClickHouse's container first starts: the accounts of users.sql with the passwords of the
# environment. They must not hold a single quote or a backslash.
set -eu
case "$CLICKHOUSE_BROKER_PASSWORD$CLICKHOUSE_ANALYST_PASSWORD" in
  *[\'\\]*) echo "passwords must not hold ' or \\" >&2; exit 1 ;;
esac
sql=$(cat "${USERS_SQL:-/broker/users.sql}")
sql=${sql//change-me-1/"$CLICKHOUSE_BROKER_PASSWORD"}
sql=${sql//change-me-2/"$CLICKHOUSE_ANALYST_PASSWORD"}
clickhouse-client --user "$CLICKHOUSE_USER" --password "$CLICKHOUSE_PASSWORD" --multiquery <<< "$sql"
