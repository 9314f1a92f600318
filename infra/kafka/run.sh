#!/bin/sh
# Run one Apache Kafka node (KRaft: broker and controller in one) on loopback until interrupted.
#
#   infra/kafka/run.sh [PORT]       PORT defaults to 9092; the controller takes PORT + 1
#
# Data lie in a new directory that is removed at the end. Prints "ready 127.0.0.1:PORT" once the node
# takes requests. Then, elsewhere:
#
#   BROKER_TEST_KAFKA=127.0.0.1:9092 pytest tests/contract/test_embedded_log.py
set -eu
here=$(cd "$(dirname "$0")" && pwd)
port=${1:-9092}
libs=$("$here/fetch.sh")
data=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node" 2>/dev/null; wait; rm -rf "$data"' EXIT
trap 'exit 0' INT TERM

sed -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$((port + 1))|g" -e "s|@DATA@|$data|g" \
    "$here/server.properties" >"$data/server.properties"
cluster=$(java -cp "$libs/*" kafka.tools.StorageTool random-uuid 2>/dev/null)
java -cp "$libs/*" kafka.tools.StorageTool format \
    --config "$data/server.properties" --cluster-id "$cluster" >"$data/format.out" 2>&1 ||
    { cat "$data/format.out" >&2; exit 1; }

java -Xmx512m -Dlog4j2.configurationFile="$here/log4j2.properties" \
    -cp "$libs/*" kafka.Kafka "$data/server.properties" >"$data/node.out" 2>&1 &
node=$!
until grep -q "Kafka Server started" "$data/node.out"; do
    kill -0 "$node" 2>/dev/null || { cat "$data/node.out" >&2; exit 1; }
    sleep 0.2
done
echo "ready 127.0.0.1:$port"
wait "$node"
