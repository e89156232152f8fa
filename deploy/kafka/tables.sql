-- What Weir's topics hold, as tables of ClickHouse: the columns are those of docs/row-format.md (rows)
-- and docs/kafka.md (buckets, sketches), in their order, so that a record's value is RowBinary of its table.
-- A test holds the widths against the records. Table engines are for one server; a cluster has its own.

-- weir.clicks.v1: the value is any number of rows. A block that comes twice has the same key.
CREATE TABLE weir_clicks
(
    received_at_ms UInt64,
    minute UInt32,
    outcome UInt8,
    reason UInt8,
    row_flags UInt8,
    traffic UInt8,
    impression FixedString(16),
    ad UInt64,
    price_micros UInt64,
    campaign UInt32,
    creative UInt32,
    placement UInt32,
    publisher UInt32,
    tag UInt64,
    user_key UInt64,
    clicked_at_ms UInt64,
    latitude_e6 Int32,
    longitude_e6 Int32,
    x UInt16,
    y UInt16,
    country FixedString(2),
    device UInt8,
    os UInt8,
    ordinal UInt8,
    click_flags UInt8,
    extension_len UInt16,
    click_reserved UInt32,
    extension String
)
ENGINE = MergeTree
ORDER BY (ad, minute);

-- weir.buckets.v1: one row a record. Totals so far, set by the highest revision and never added up.
CREATE TABLE weir_buckets
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
ENGINE = ReplacingMergeTree(revision)
ORDER BY (ad, minute, publisher, placement, creative, country, device, os, rules, incarnation);

-- weir.uniques.v1: one row a record. A row with unsketched above 0 says that its minute has sketches missing.
CREATE TABLE weir_uniques
(
    node UInt32,
    incarnation UInt64,
    revision UInt64,
    ad UInt64,
    minute UInt32,
    unsketched UInt64,
    users AggregateFunction(uniqTheta, UInt64)
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (ad, minute, unsketched > 0, node, incarnation);
