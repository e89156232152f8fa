#!/bin/sh
# Makes Weir's topics where nodes may not (`kafka.create_topics = false`). Run it with the tools of
# Apache Kafka on the search path:
#
#   create-topics.sh BOOTSTRAP [PREFIX] [PARTITIONS] [REPLICATION] [more for kafka-topics.sh ...]
#
# What each setting is for stands in docs/kafka.md. A node checks them at its start.
set -eu
bootstrap=$1
prefix=${2-weir.}
partitions=${3-12}
replication=${4-3}
[ $# -gt 4 ] && shift 4 || shift $#

create() {
    topic=$1
    count=$2
    shift 2
    kafka-topics.sh --bootstrap-server "$bootstrap" --create --if-not-exists --topic "$prefix$topic.v1" \
        --partitions "$count" --replication-factor "$replication" \
        --config message.timestamp.type=LogAppendTime "$@"
}

for topic in clicks buckets uniques rejects; do
    create "$topic" "$partitions" --config min.insync.replicas=$((replication > 2 ? 2 : 1)) "$@"
done
create checkpoints 4 --config cleanup.policy=compact --config segment.bytes=16777216 \
    --config min.cleanable.dirty.ratio=0.1 --config segment.ms=3600000 \
    --config min.insync.replicas=$((replication > 2 ? 2 : 1)) "$@"
