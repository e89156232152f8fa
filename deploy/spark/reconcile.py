"""Counts a day again from an archive, on a cluster: what `weir-central reconcile` does on one machine.

    spark-submit reconcile.py s3a://clicks 2026-11-22 [--filters 128,129] [--output s3a://clicks/_spark/2026-11-22]

Both take the clicks of every impression in the order in which they came, each node's own in the order in which it
decided on them, and count them by one rule; docs/central.md says what the causes mean. A test runs both on the same
archive: they agree to the unit. Without `--output` the result is printed as JSON.

Only what the manifest names is read, so an object that was put and never entered does not count. Of what the audit says was
deleted no day is counted.
"""

import argparse
import json
import sys
from datetime import datetime, timezone

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

# Hours around a day in which clicks of its impressions may have been received: a signature's lifetime.
LIFETIME_HOURS = 24
# docs/row-format.md, section 1: outcomes, bits of row_flags and click_flags, the first reason that filters.
ACCEPTED, REPEAT, DUPLICATE, LATE, FILTERED = range(5)
CLOCK_SUSPECT, REFRACTORY = 1, 2
FOREIGN = 1
FIRST_FILTERED = 128

IMPRESSION = ["impression_low", "impression_high", "is_signed"]
CLICK = [
    "incarnation", "epoch", "worker", "sequence", "row", "received_at_ms", "clicked_at_ms", "minute", "outcome",
    "reason", "row_flags", "traffic", "ordinal", "ad", "campaign", "price_micros",
]
RECOUNTED = T.ArrayType(
    T.StructType(
        [
            T.StructField("ad", T.LongType()),
            T.StructField("campaign", T.LongType()),
            T.StructField("price_micros", T.LongType()),
            T.StructField("before_minute", T.LongType()),
            T.StructField("before", T.IntegerType()),
            T.StructField("after_minute", T.LongType()),
            T.StructField("after", T.IntegerType()),
            T.StructField("cause", T.StringType()),
        ]
    )
)


def in_order(clicks):
    """Each node's clicks as it decided on them; among nodes the earlier goes first."""
    place = lambda click: (click.incarnation, click.epoch, click.worker, click.sequence, click.row)
    nodes = {}
    for click in sorted(clicks, key=place):
        nodes.setdefault(click.incarnation, []).append(click)
    rests = [iter(own) for own in nodes.values()]
    heads = [[next(rest), rest] for rest in rests]
    while heads:
        head = min(heads, key=lambda head: (head[0].received_at_ms, place(head[0])))
        yield head[0]
        head[0] = next(head[1], None)
        if head[0] is None:
            heads.remove(head)


def filter_of(click, filters):
    """The reason a click is filtered for, or 0."""
    if filters is None:
        return click.reason if click.outcome == FILTERED else 0
    held = [number for number in range(FIRST_FILTERED, FIRST_FILTERED + 8) if click.traffic >> (number - FIRST_FILTERED) & 1]
    return next((number for number in held if number in filters), 0)


def cause_of(click, outcome, reason, counted_by):
    """Why a click is counted in another way than by its node, if it is."""
    if click.outcome == outcome and (outcome != FILTERED or click.reason == reason):
        return None
    if click.outcome == LATE:
        return "late"
    if FILTERED in (click.outcome, outcome):
        return "rule_change"
    if click.outcome == ACCEPTED and counted_by not in (None, click.incarnation):
        return "cross_node_repeat"
    return "consequence"


def recount(filters):
    """A function from the clicks of one impression to what each is counted as."""

    def of_impression(clicks):
        seen, counted, counted_by, found = set(), False, None, []
        for click in in_order(clicks):
            minute, cause = click.minute, None
            if click.ordinal in seen:
                outcome, cause = DUPLICATE, "cross_node_duplicate"
            else:
                reason = filter_of(click, filters)
                if reason:
                    outcome = FILTERED
                elif not counted and not click.row_flags & REFRACTORY:
                    outcome, counted, counted_by = ACCEPTED, True, click.incarnation
                else:
                    outcome = REPEAT
                seen.add(click.ordinal)
                if click.outcome == LATE and not click.row_flags & CLOCK_SUSPECT:
                    minute = max(click.clicked_at_ms, 0) // 60_000
                cause = cause_of(click, outcome, reason, counted_by)
            found.append((click.ad, click.campaign, click.price_micros, click.minute, click.outcome, minute, outcome, cause))
        return found

    return F.udf(of_impression, RECOUNTED)


def deleted(lines):
    """The objects that are gone, and the number of the line that says so: what was done, and what is about to be."""
    ended = {line["of"] for line in lines if "of" in line}
    said = [line for line in lines if line["number"] not in ended]
    changes = ((change, line) for line in said for change in line.get("objects", []))
    return {change["path"]: line["number"] for change, line in changes if change["after"] is None}


def objects(spark, archive, start):
    """The objects of a day, by the manifest alone; none of them may have been deleted."""
    first = int(start.timestamp()) // 3600
    hours = range(first - LIFETIME_HOURS, first + 24 + LIFETIME_HOURS)
    # Both folders at once: one that is not there yet would be an error by itself.
    files = spark.sparkContext.wholeTextFiles(f"{archive}/_{{manifest,audit}}/*.json").values().map(json.loads)
    gone = deleted(files.filter(lambda file: "batch" not in file).collect())
    entries = files.filter(lambda file: "batch" in file)
    named = entries.flatMap(lambda entry: entry["objects"]).filter(lambda named: named["hour"] in hours)
    paths = named.map(lambda named: named["path"]).collect()
    for path in paths:
        if path in gone:
            sys.exit(f"it cannot be counted again: {path} was deleted, line {gone[path]} of the audit")
    return [f"{archive}/{path}" for path in paths]


def counts(minute, outcome):
    """What clicks add by an outcome, as columns: none where they are duplicates or late."""
    outcome, is_signed = F.col(outcome), F.col("is_signed")
    accepted = (outcome == ACCEPTED).cast("long")
    net = ((outcome == ACCEPTED) & is_signed).cast("long")
    gross = outcome.isin(ACCEPTED, REPEAT, FILTERED).cast("long")
    columns = {"click_count": accepted, "gross": gross, "net": net, "cost_micros": net * F.col("price_micros")}
    return F.col(minute).alias("minute"), columns


def reconcile(spark, archive, day, filters):
    """The changes by ad, campaign, minute and cause, and the counts of each campaign before and after."""
    start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    first = int(start.timestamp()) // 60
    paths = objects(spark, archive, start)
    if not paths:
        return {"day": day, "campaigns": [], "adjustments": []}
    rows = spark.read.parquet(*paths).withColumn("is_signed", F.col("click_flags").bitwiseAND(FOREIGN) == 0)
    grouped = rows.groupBy(*IMPRESSION).agg(F.collect_list(F.struct(*CLICK)).alias("clicks"))
    found = grouped.select("is_signed", F.explode(recount(filters)("clicks")).alias("of")).select("is_signed", "of.*")
    found = found.cache()

    def added(minute, outcome, sign):
        minute, columns = counts(minute, outcome)
        signed = [(sign * column).alias(name) for name, column in columns.items()]
        table = found.select("ad", "campaign", "cause", minute, *signed)
        return table.where((F.col("minute") >= first) & (F.col("minute") < first + 24 * 60))

    sums = [F.sum(name).alias(name) for name in ("click_count", "gross", "net", "cost_micros")]
    before, after = ("before_minute", "before"), ("after_minute", "after")
    changes = added(*before, -1).union(added(*after, 1)).where(F.col("cause").isNotNull())
    changes = changes.groupBy("ad", "campaign", "minute", "cause").agg(*sums)
    changes = changes.where(" or ".join(f"{name} <> 0" for name in ("click_count", "gross", "net", "cost_micros")))
    by_campaign = {}
    for name, side in (("recorded", before), ("reconciled", after)):
        for row in added(*side, 1).groupBy("campaign").agg(*sums).collect():
            by_campaign.setdefault(row.campaign, {})[name] = {key: row[key] for key in row.asDict() if key != "campaign"}
    adjustments = [
        {"ad_id": str(row.ad % 2**64), "campaign_id": row.campaign, **{key: row[key] for key in row.asDict() if key not in ("ad", "campaign")}}
        for row in changes.collect()
    ]
    campaigns = [{"campaign_id": campaign, **sides} for campaign, sides in sorted(by_campaign.items())]
    return {"day": day, "campaigns": campaigns, "adjustments": adjustments}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", help="where the archive is, as Spark names it")
    parser.add_argument("day", help="the day, in UTC, such as 2026-01-31")
    parser.add_argument("--filters", help="numbers of the reasons that filter; without it, what the nodes decided")
    parser.add_argument("--output", help="a folder for the result as JSON, in place of printing it")
    args = parser.parse_args()
    filters = None if args.filters is None else {int(number) for number in args.filters.split(",") if number}
    spark = SparkSession.builder.appName(f"weir reconcile {args.day}").getOrCreate()
    result = json.dumps(reconcile(spark, args.archive.rstrip("/"), args.day, filters), sort_keys=True)
    if args.output:
        spark.sparkContext.parallelize([result], 1).saveAsTextFile(args.output)
    else:
        print(result)
    spark.stop()


if __name__ == "__main__":
    main()
