-- Buckets by ClickHouse's own Kafka engine, in place of `weir-central`: after the tables of schema.sql, on a cluster; CLUSTER is its
-- name. On one machine leave out ON CLUSTER 'CLUSTER'.
--
-- The engine reads at least once. So what it reads goes into the table that replaces by revision and nowhere else. A view
-- that sums what comes (Kafka -> materialized view -> SummingMergeTree) would count again whatever is delivered again, and every
-- revision of a bucket on top of the one before, for a record has the totals so far and not what was added.
--
-- A record's value is one row of RowBinary. librdkafka reads committed transactions only, unless it is told otherwise.
-- Windows are not built this way: which minutes are closed follows from checkpoints and from how far all partitions are read,
-- which no view knows. Ask the table buckets, with FINAL. Not run: the engine that the tests have has no Kafka.

CREATE TABLE IF NOT EXISTS weir.buckets_queue ON CLUSTER 'CLUSTER'
(
    node UInt32,
    incarnation UInt64,
    revision UInt64,
    ad UInt64,
    minute UInt32,
    publisher UInt32,
    placement UInt32,
    creative UInt32,
    country FixedString(2),
    device UInt8,
    os UInt8,
    rules UInt32,
    accepted UInt64,
    repeat UInt64,
    late UInt64,
    clock_suspect UInt64,
    cost_micros UInt64,
    filtered_128 UInt64,
    filtered_129 UInt64,
    filtered_130 UInt64,
    filtered_131 UInt64,
    filtered_132 UInt64,
    filtered_133 UInt64,
    filtered_134 UInt64,
    filtered_135 UInt64,
    unsigned UInt64,
    marked UInt64,
    marked_cost_micros UInt64
)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = '127.0.0.1:9092',
    kafka_topic_list = 'weir.buckets.v1',
    kafka_group_name = 'weir-clickhouse',
    kafka_format = 'RowBinary',
    -- What is no bucket goes to buckets_unreadable, and does not hold up what comes after it.
    kafka_handle_error_mode = 'stream';

CREATE MATERIALIZED VIEW IF NOT EXISTS weir.buckets_feed ON CLUSTER 'CLUSTER' TO weir.buckets AS
SELECT
    node, incarnation, revision, ad, minute, publisher, placement, creative, country, device, os, rules,
    accepted, repeat, late, clock_suspect, cost_micros,
    filtered_128, filtered_129, filtered_130, filtered_131, filtered_132, filtered_133, filtered_134, filtered_135,
    unsigned, marked, marked_cost_micros
FROM weir.buckets_queue
WHERE _error = '';

CREATE TABLE IF NOT EXISTS weir.buckets_unreadable ON CLUSTER 'CLUSTER'
(
    topic String,
    partition UInt64,
    offset UInt64,
    error String,
    value String
)
ENGINE = MergeTree
ORDER BY (topic, partition, offset);

CREATE MATERIALIZED VIEW IF NOT EXISTS weir.buckets_unreadable_feed ON CLUSTER 'CLUSTER' TO weir.buckets_unreadable AS
SELECT _topic AS topic, _partition AS partition, _offset AS offset, _error AS error, _raw_message AS value
FROM weir.buckets_queue
WHERE _error != '';
