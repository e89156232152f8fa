-- Weir in ClickHouse, on a cluster. `weir-central clickhouse-schema --config FILE` prints it as a config wants it, ready for
-- `clickhouse-client --multiquery`:
--
--   clickhouse.cluster is a name   that cluster in place of CLUSTER below
--   there is none                  one machine: without ON CLUSTER, without Replicated and _local, and without the
--                                  Distributed tables, so that every name that is asked for is the same on both
--   clickhouse.database            that database in place of weir
--
-- Nothing here adds up as it comes in. A bucket is replaced by its higher revision, a window by the one that was built from more of
-- the log; so whatever is inserted twice, or out of order, changes nothing. docs/central.md says who fills what, and when.

CREATE DATABASE IF NOT EXISTS weir ON CLUSTER 'CLUSTER';

-- What nodes say, a row a record of buckets.v1 and no column more: the record's value is RowBinary of this table.
-- Minute first: it is read whole minutes at a time, to close them. An ad's history is read from windows, where the ad is first.
-- All of ORDER BY is one bucket's identity. The month follows from the minute, so a bucket is in one part of the table only.
CREATE TABLE IF NOT EXISTS weir.buckets_local ON CLUSTER 'CLUSTER'
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
    marked_cost_micros UInt64,
    -- Not stored and not inserted: as answers name them.
    start DateTime('UTC') ALIAS toDateTime(minute * 60, 'UTC'),
    click_count UInt64 ALIAS accepted,
    filtered UInt64 ALIAS filtered_128 + filtered_129 + filtered_130 + filtered_131
        + filtered_132 + filtered_133 + filtered_134 + filtered_135,
    gross UInt64 ALIAS accepted + repeat + filtered,
    net UInt64 ALIAS accepted - unsigned
)
ENGINE = ReplicatedReplacingMergeTree(revision)
PARTITION BY toYYYYMM(toDateTime(minute * 60, 'UTC'))
ORDER BY (minute, ad, publisher, placement, creative, country, device, os, rules, incarnation)
-- Windows stay; buckets may go once nothing changes them any more. Then a node that was away for longer changes wrong windows.
-- TTL toDateTime(minute * 60, 'UTC') + INTERVAL 3 MONTH
-- A replicated table has its own window of 10,000 inserts; this one is for a machine by itself.
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS weir.buckets ON CLUSTER 'CLUSTER' AS weir.buckets_local
ENGINE = Distributed('CLUSTER', weir, buckets_local, ad);

-- Sums of closed minutes over all nodes, dimensions kept: never added to, always built anew from buckets.
-- `built` is how many records of the log had been read then.
CREATE TABLE IF NOT EXISTS weir.windows_local ON CLUSTER 'CLUSTER'
(
    span Enum8('1m' = 1, '5m' = 2, '1h' = 3, '1d' = 4, 'month' = 5),
    start DateTime('UTC'),
    ad UInt64,
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
    marked_cost_micros UInt64,
    built UInt64,
    click_count UInt64 ALIAS accepted,
    filtered UInt64 ALIAS filtered_128 + filtered_129 + filtered_130 + filtered_131
        + filtered_132 + filtered_133 + filtered_134 + filtered_135,
    gross UInt64 ALIAS accepted + repeat + filtered,
    net UInt64 ALIAS accepted - unsigned
)
ENGINE = ReplicatedReplacingMergeTree(built)
PARTITION BY (span, toYYYYMM(start))
ORDER BY (span, ad, start, publisher, placement, creative, country, device, os, rules)
-- TTL start + INTERVAL 3 MONTH DELETE WHERE span = '1m', start + INTERVAL 1 YEAR DELETE WHERE span = '5m'
-- An ad's last hour is few rows: small granules are read faster.
SETTINGS index_granularity = 1024;

CREATE TABLE IF NOT EXISTS weir.windows ON CLUSTER 'CLUSTER' AS weir.windows_local
ENGINE = Distributed('CLUSTER', weir, windows_local, ad);

-- Windows that end before this minute are built.
CREATE TABLE IF NOT EXISTS weir.closed_local ON CLUSTER 'CLUSTER'
(
    name LowCardinality(String),
    before UInt32
)
ENGINE = ReplicatedReplacingMergeTree(before)
ORDER BY name;

CREATE TABLE IF NOT EXISTS weir.closed ON CLUSTER 'CLUSTER' AS weir.closed_local
ENGINE = Distributed('CLUSTER', weir, closed_local, cityHash64(name));

-- How far each life of a node's journal is: what it told last, and what of that is true of the tables here.
CREATE TABLE IF NOT EXISTS weir.nodes_local ON CLUSTER 'CLUSTER'
(
    node UInt32,
    incarnation UInt64,
    region String,
    pop String,
    told_at_ms UInt64,
    told_flush UInt64,
    told_final_before UInt32,
    told_counted_until_ms Nullable(UInt64),
    is_reached Bool,
    final_before UInt32,
    counted_until_ms Nullable(UInt64),
    is_retired Bool,
    version UInt64
)
ENGINE = ReplicatedReplacingMergeTree(version)
ORDER BY (node, incarnation);

CREATE TABLE IF NOT EXISTS weir.nodes ON CLUSTER 'CLUSTER' AS weir.nodes_local
ENGINE = Distributed('CLUSTER', weir, nodes_local, node);

-- Up to where the topics are in the tables above. Written last; what comes after it is read again.
CREATE TABLE IF NOT EXISTS weir.positions_local ON CLUSTER 'CLUSTER'
(
    topic String,
    partition Int32,
    next Int64
)
ENGINE = ReplicatedReplacingMergeTree(next)
ORDER BY (topic, partition);

CREATE TABLE IF NOT EXISTS weir.positions ON CLUSTER 'CLUSTER' AS weir.positions_local
ENGINE = Distributed('CLUSTER', weir, positions_local, cityHash64(topic, partition));
