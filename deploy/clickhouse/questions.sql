-- The questions of /v1/stats asked of ClickHouse: the figures are those of docs/central.md, to the unit.
-- Parameters are ClickHouse's own: over HTTP param_ad=7, with clickhouse-client --param_ad=7. Ranges are whole windows.
-- FINAL is what makes of many revisions one bucket: an answer without it may count some twice.

-- question: windows of an ad, up to the open minute
-- Closed minutes come from their windows, open ones from buckets. A window is final when no minute of it can change.
WITH (SELECT max(before) FROM weir.closed WHERE name = 'windows') AS closed
SELECT start, sum(t.click_count) AS click_count, sum(t.gross) AS gross, sum(t.net) AS net, sum(t.repeat) AS repeat,
    sum(t.filtered) AS filtered, sum(t.late) AS late, sum(t.unsigned) AS unsigned, sum(t.marked) AS marked,
    sum(t.cost_micros) AS cost_micros, min(t.is_final) AS final
FROM
(
    SELECT start, click_count, gross, net, repeat, filtered, late, unsigned, marked, cost_micros, true AS is_final
    FROM weir.windows FINAL
    WHERE span = '1m' AND ad = {ad:UInt64} AND windows.start >= {start:DateTime('UTC')} AND windows.start < {end:DateTime('UTC')}
        AND windows.start < toDateTime(closed * 60, 'UTC')
    UNION ALL
    SELECT start, click_count, gross, net, repeat, filtered, late, unsigned, marked, cost_micros, false AS is_final
    FROM weir.buckets FINAL
    WHERE ad = {ad:UInt64} AND minute >= toUInt32(intDiv(toUnixTimestamp({start:DateTime('UTC')}), 60))
        AND minute < toUInt32(intDiv(toUnixTimestamp({end:DateTime('UTC')}), 60)) AND minute >= closed
) AS t
GROUP BY start
ORDER BY start
FORMAT JSONEachRow;

-- question: closed windows of an ad
-- span is 1m, 5m, 1h, 1d or month.
SELECT start, sum(t.click_count) AS click_count, sum(t.gross) AS gross, sum(t.net) AS net, sum(t.late) AS late, sum(t.cost_micros) AS cost_micros
FROM weir.windows AS t FINAL
WHERE span = {span:String} AND ad = {ad:UInt64} AND t.start >= {start:DateTime('UTC')} AND t.start < {end:DateTime('UTC')}
GROUP BY start
ORDER BY start
FORMAT JSONEachRow;

-- question: the busiest ads
SELECT ad, sum(t.click_count) AS click_count, sum(t.gross) AS gross, sum(t.net) AS net, sum(t.late) AS late, sum(t.cost_micros) AS cost_micros
FROM weir.buckets AS t FINAL
WHERE minute >= toUInt32(intDiv(toUnixTimestamp({start:DateTime('UTC')}), 60))
    AND minute < toUInt32(intDiv(toUnixTimestamp({end:DateTime('UTC')}), 60))
GROUP BY ad
ORDER BY click_count DESC, ad
LIMIT {limit:UInt32}
FORMAT JSONEachRow;

-- question: an ad by country
SELECT start, country, sum(t.click_count) AS click_count, sum(t.net) AS net, sum(t.cost_micros) AS cost_micros
FROM weir.windows AS t FINAL
WHERE span = '1h' AND ad = {ad:UInt64} AND t.start >= {start:DateTime('UTC')} AND t.start < {end:DateTime('UTC')}
GROUP BY start, country
ORDER BY start, country
FORMAT JSONEachRow;

-- question: how complete and how fresh
-- Of several lives of a node's journal the one that spoke last is the one that lives.
SELECT min(n.final_before) AS final_before, if(count(n.counted_until_ms) = count(), min(n.counted_until_ms), NULL) AS counted_until_ms,
    count() AS nodes, argMin(n.node, ifNull(n.counted_until_ms, 0)) AS slowest_node
FROM (SELECT * FROM weir.nodes FINAL WHERE NOT is_retired ORDER BY node, told_at_ms DESC LIMIT 1 BY node) AS n
FORMAT JSONEachRow;

-- question: windows that are not the sum of their buckets
-- For an audit: there are none, but for the moment between an insert of late buckets and the next build.
WITH (SELECT max(before) FROM weir.closed WHERE name = 'windows') AS closed
SELECT start, ad, count() AS sides
FROM
(
    SELECT start, ad, cityHash64(sum(w.accepted), sum(w.repeat), sum(w.late), sum(w.clock_suspect), sum(w.cost_micros), sum(w.filtered),
        sum(w.unsigned), sum(w.marked), sum(w.marked_cost_micros)) AS figures
    FROM weir.windows AS w FINAL WHERE span = '1m' GROUP BY start, ad
    UNION ALL
    SELECT start, ad, cityHash64(sum(b.accepted), sum(b.repeat), sum(b.late), sum(b.clock_suspect), sum(b.cost_micros), sum(b.filtered),
        sum(b.unsigned), sum(b.marked), sum(b.marked_cost_micros)) AS figures
    FROM weir.buckets AS b FINAL WHERE minute < closed GROUP BY start, ad
) AS t
GROUP BY start, ad
HAVING count() != 2 OR uniqExact(t.figures) != 1
ORDER BY start, ad
FORMAT JSONEachRow;

-- question: up to where windows are built
SELECT max(before) AS closed_before FROM weir.closed WHERE name = 'windows'
FORMAT JSONEachRow;
