"""The tables that `experiments.plan` shows."""

from experiments import plan_chips, plan_compile
from experiments.plan_chips import GIB, Slice


def number(value, unit: float = 1.0, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f}"


def show(rows: list[dict], stages: list[dict], where: Slice, options) -> str:
    """The tables that the terminal gets."""
    chip = where.chip
    lines = [*options.notes, *([""] if options.notes else [])]
    lines += [
        f"{where.name} x {where.slices}: {where.chips} chips of {chip.flops / 1e12:.0f} TFLOP/s (dense bfloat16), "
        f"{where.usable / GIB:.2f} GiB for programs, {chip.bandwidth / 1e9:.0f} GB/s memory, {chip.interconnect / 1e9:.0f} GB/s "
        "interconnect one way (data sheet)"
        + (f", {plan_chips.DATA_CENTRE / 1e9:g} GB/s a chip between slices (assumed)" if where.slices > 1 else ""),
        "",
        f"{'program':32} {'mesh':>9} {'rows':>6} {'GiB args':>9} {'temps':>7} {'peak':>7} {'kept':>6} {'fits':>5} {'TFLOP':>10} "
        f"{'GB moved':>9} {'compute s':>10} {'memory s':>9} {'network s':>9} {'MFU':>5}  bound",
    ]
    for row in rows:
        fits = {None: "?", True: "yes", False: "NO"}[row["fits"]]
        peak = number(row["peak_bytes"], GIB)
        if not row["compiled"]:  # at least so much
            peak = f">{number(row['peak_bytes'] or row['resident_bytes'], GIB)}"
        memory = f"{number(row.get('argument_bytes'), GIB):>9} {number(row.get('temporary_bytes'), GIB):>7} {peak:>7}"
        bounds = f"{row['compute_seconds']:>10.4f} {row['memory_seconds']:>9.4f} {row['interconnect_seconds']:>9.4f}"
        lines.append(
            f"{row['program'][:32]:32} {row['mesh']:>9} {row['rows']:>6} {memory} {number(row['held_bytes'], GIB):>6} {fits:>5} "
            f"{number(row['counted_flops'], 1e12, 1):>10} {row['memory_traffic'] / 1e9:>9.1f} {bounds} {row['mfu']:>5.2f}  "
            f"{row['bound']}"
        )
        for entry in row.get("collectives") or []:
            lines.append(
                f"    {entry['collective']} over {entry['axis']}: {entry['count']:,.0f} x, {entry['bytes'] / 1e9:,.3f} GB a chip"
            )
        if not row["compiled"]:
            sent = ", ".join(f"{n / 1e9:,.3f} GB over {axis}" for axis, n in row["sent"].items() if n)
            lines += [f"    sent by a chip, on paper: {sent}"] if sent else []
        if row["note"]:
            lines.append(f"    {row['note']}")
        if row.get("advice"):
            lines.append(f"    change: {row['advice']}")
    if stages:
        head = (
            f"{'stage':12} {'cells':>5} {'tokens':>16} {'rollouts':>13} {'updates':>9} {'hours':>9} {'chip-hours':>11} "
        )
        lines += ["", head + f"{'stored GB':>10} {'cost':>10}"]
        for e in stages:
            lines.append(
                f"{e['stage']:12} {e['cells']:>5} {e['tokens_generated']:>16,.0f} {e['rollouts']:>13,.0f} {e['updates']:>9,.0f} "
                f"{e['hours']:>9.2f} {e['chip_hours']:>11.1f} {e['stored_bytes'] / 1e9:>10.2f} {number(e['cost']):>10}"
                + ("  (does not fit)" if e["fits"] is False else "")
            )
        total = stages[-1]
        if total["fits"] is False:
            lines.append(
                "hours and cost are of programs that do not fit: what they would take on a slice that held them"
            )
        lines.append(
            f"a training checkpoint is {total['checkpoint_bytes'] / 1e9:.1f} GB, an exported policy "
            f"{total['policy_bytes'] / 1e9:.1f} GB; hours are data-sheet bounds over an efficiency of {options.efficiency:g}; "
            "what hosts do alone (grading, credit, report) is not among them"
        )
    if any(row["held_bytes"] for row in rows):
        lines += [
            "kept: beside a train step, the best parameters so far and the policy that it began with; beside sampling and "
            "scoring, the stacked weights that those for decoding were cut from"
        ]
    if not plan_compile.available():
        lines += ["", plan_compile.INSTALL]
    return "\n".join(lines)
