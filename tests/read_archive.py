"""Reads an archive as an engine does that knows Parquet and nothing of ours; says in JSON what it found."""

import json
import sys

import pyarrow.compute as pc
import pyarrow.dataset as ds

PLACE = ["incarnation", "epoch", "worker", "sequence", "row"]
HOUR = ["year", "month", "day", "hour"]

# Folders are partitions; names that begin with _ are passed over, the manifest among them.
table = ds.dataset(sys.argv[1], format="parquet", partitioning="hive").to_table()

received = pc.cast(table["received_at_ms"], "timestamp[ms]")
parts = {"year": pc.year, "month": pc.month, "day": pc.day, "hour": pc.hour}
misplaced = sum(
    pc.sum(pc.not_equal(pc.cast(table[name], "int64"), parts[name](received))).as_py() or 0 for name in HOUR
)
found = {
    "rows": table.num_rows,
    "distinct": table.select(PLACE).group_by(PLACE).aggregate([]).num_rows,
    "misplaced": misplaced,
    "price_micros": pc.sum(table["price_micros"]).as_py() or 0,
    "accepted": pc.sum(pc.equal(table["outcome"], 0)).as_py() or 0,
    "nulls": sum(table[name].null_count for name in table.column_names),
    "columns": [f"{field.name} {field.type}" for field in table.schema if field.name not in HOUR],
}
print(json.dumps(found))
