#!/bin/sh
# Fetch Apache Kafka's jars from Maven Central into $KAFKA_HOME/libs, once. Needs Maven and Java 17.
#
#   infra/kafka/fetch.sh            KAFKA_HOME defaults to ~/.cache/model-market-broker/kafka
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${KAFKA_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/model-market-broker/kafka}
mkdir -p "$home"
if [ ! -e "$home/libs/.complete" ]; then
    mvn --batch-mode --quiet --file "$here/pom.xml" "-Dkafka.libs=$home/libs" \
        dependency:copy-dependencies >&2
    touch "$home/libs/.complete"
fi
echo "$home/libs"
