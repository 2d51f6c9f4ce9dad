"""Add to each row what a plan says about times ahead of it, as columns.

    python pipelines/plan.py ROWS PLAN OUTPUT --key KEY --time TIME --ahead HOURS …

ROWS and PLAN are Parquet files with the same key and time. The time of a plan's row is the time it
is about, and there is one row for each key and time; OUTPUT has the rows of ROWS in their order,
and for each column `staff` of the plan `staff_in_3h`, with a null where the plan has no such time.
A forecast with `[target] horizon = "3h"` takes it as a feature like others. What the plan says must
have been known at the time of the row: a plan that was corrected later leaks the future.
"""

import argparse
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def with_plan(rows: pa.Table, plan: pa.Table, key: str, time: str, hours: list[int]) -> pa.Table:
    """Return the rows with the columns of the plan, each as many hours ahead as `hours` lists.

    Raises SystemExit if the plan has two rows of one key and time.
    """
    if plan.group_by([key, time]).aggregate([]).num_rows < plan.num_rows:
        raise SystemExit(f"the plan has several rows with the same {key!r} and {time!r}: keep one")
    planned = [name for name in plan.column_names if name not in (key, time)]
    number = pa.array(range(rows.num_rows))
    for ahead in hours:
        about = pc.add(rows[time], pa.scalar(timedelta(hours=ahead)))
        asked = pa.table({"number": number, key: rows[key], time: about.cast(plan[time].type)})
        matched = asked.join(plan, [key, time], join_type="left outer").sort_by("number")
        for name in planned:
            rows = rows.append_column(f"{name}_in_{ahead}h", matched[name])
    return rows


def main() -> None:
    """Read both files and write the third."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("rows", "plan", "output"):
        parser.add_argument(name)
    parser.add_argument("--key", required=True)
    parser.add_argument("--time", required=True)
    parser.add_argument("--ahead", type=int, nargs="+", required=True, metavar="HOURS")
    options = parser.parse_args()
    rows, plan = pq.read_table(options.rows), pq.read_table(options.plan)
    table = with_plan(rows, plan, options.key, options.time, options.ahead)
    pq.write_table(table, options.output)


if __name__ == "__main__":
    main()
