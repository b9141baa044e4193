"""What a compiled program moves, read from its HLO text: memory traffic and collectives, loop bodies multiplied out."""

import collections
import dataclasses
import math
import re

BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s8": 1, "u8": 1}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
# no traffic of their own: names for parts of other buffers, or counted where the work is
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "after-all"}
FREE |= {"partition-id", "replica-id", "opt-barrier", "optimization-barrier", "iota"}

HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
OP = re.compile(r"\s*([\w\-]+)\((.*)$")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of HLO."""

    name: str
    shape: str
    op: str
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        depth, end = 1, len(self.rest)
        for place, letter in enumerate(self.rest):
            depth += (letter == "(") - (letter == ")")
            if not depth:
                end = place
                break
        return re.findall(r"%([\w.\-]+)", self.rest[:end])

    def called(self, *roles: str) -> list[str]:
        return [name for role in roles for name in re.findall(rf"\b{role}=%?([\w.\-]+)", self.rest)]


@dataclasses.dataclass
class Traffic:
    """Of one device and one run of the program: bytes to and from memory; (collective, axis) -> (count, bytes sent)."""

    memory: float = 0.0
    collectives: dict[tuple[str, str], list[float]] = dataclasses.field(default_factory=dict)


def size(shape: str) -> float:
    """Bytes of a shape, or of all parts of a tuple."""
    return _size(shape, everywhere=True)


def in_memory(shape: str) -> float:
    """Bytes of what lies in the chip's main memory: layouts S(1) and up are of memories on the chip's core."""
    return _size(shape, everywhere=False)


def _size(shape: str, everywhere: bool) -> float:
    total = 0.0
    for kind, dims, layout in SHAPE.findall(shape):
        if everywhere or "S(" not in layout:
            total += BYTES.get(kind, 0) * math.prod(map(int, filter(None, dims.split(","))))
    return total


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Computations by name, and the entry's name."""
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif current is not None and (found := LINE.match(line)):
            shape, rest = _shape_and_rest(found[2])
            if op := OP.match(rest):
                current.append(Instruction(found[1], shape, op[1], op[2], line.lstrip().startswith("ROOT")))
    return computations, entry


def _shape_and_rest(text: str) -> tuple[str, str]:
    """A tuple's shape ends at its closing parenthesis (layouts hold some too), any other at the first blank."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: place + 1], text[place + 1 :]
    return text, ""


def traffic(text: str, mesh_shape: dict[str, int], trips: int = 1) -> Traffic:
    """Memory traffic and collectives; `trips` rounds of a loop whose number of rounds the compiler does not know."""
    computations, entry = parse(text)
    out = Traffic()

    def visit(name: str, times: float):
        known = {i.name: i for i in computations[name]}
        for i in computations[name]:
            op = i.op.removesuffix("-start")
            if op == "while":
                rounds = rounds_of(i, computations) or trips
                for body in i.called("body"):
                    visit(body, times * rounds)
            elif op in ("call", "async"):
                for called in i.called("to_apply", "calls", "called_computations"):
                    visit(called, times)
            elif op == "conditional":
                for called in i.called("true_computation", "false_computation") or re.findall(
                    r"%([\w.\-]+)", _list(i.rest)
                ):
                    visit(called, times)  # both: an upper bound
            elif op in COLLECTIVES:  # its shape holds what comes and, where it is asynchronous, what goes
                sent, ways = collective(i, op, known)
                total = out.collectives.setdefault((op, axis_of(i.rest, mesh_shape, ways)), [0.0, 0.0])
                total[0] += times
                total[1] += times * sent
                out.memory += times * in_memory(i.shape)
            elif op == "send" and (across := between_slices(i, known)):
                total = out.collectives.setdefault((across[0], "data"), [0.0, 0.0])
                total[0] += times
                total[1] += times * across[1]
                out.memory += times * in_memory(i.shape)
            elif op == "fusion":
                inside = computations.get((i.called("calls") or [""])[0], [])
                collected = [j for j in inside if j.op.removesuffix("-start") in COLLECTIVES]
                for j in collected:
                    sent, ways = collective(j, j.op.removesuffix("-start"), {k.name: k for k in inside})
                    key = (j.op.removesuffix("-start"), axis_of(j.rest, mesh_shape, ways))
                    total = out.collectives.setdefault(key, [0.0, 0.0])
                    total[0] += times
                    total[1] += times * sent
                out.memory += times * fusion_bytes(i, inside, known)
            elif op not in FREE and not i.op.endswith("-done"):
                out.memory += times * plain_bytes(i, known)

    visit(entry, 1.0)
    return out


def rounds_of(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """How often a loop's body runs: what the compiler notes, or the bound that its condition compares a counter with."""
    if found := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(found[1])
    lines = computations.get((loop.called("condition") or [""])[0], [])
    known = {i.name: i for i in lines}
    root = next((i for i in lines if i.root), None)
    if root is None or root.op != "compare" or "direction=LT" not in root.rest:
        return None
    bounds = [known[name] for name in root.operands if name in known and known[name].op == "constant"]
    found = re.match(r"(\d+)\)", bounds[0].rest) if bounds else None
    return int(found[1]) if found else None


def _list(rest: str) -> str:
    found = re.search(r"branch_computations=\{([^}]*)\}", rest)
    return found[1] if found else ""


def plain_bytes(i: Instruction, known: dict[str, Instruction]) -> float:
    """Bytes in and out of an instruction outside of fusions; slices and updates touch only their part."""
    if i.op == "slice-start":  # (what is sliced, the slice, context)
        parts = [found[0] for found in SHAPE.finditer(i.shape)]
        return size(parts[1]) + in_memory(parts[1]) if len(parts) > 1 else 0.0
    if i.op.endswith("-start"):  # the result and the operand are both in the shape
        return in_memory(i.shape)
    if i.op in ("dynamic-slice", "slice", "gather"):
        return 2 * in_memory(i.shape)
    if i.op == "dynamic-update-slice":
        return 2 * in_memory(known[i.operands[1]].shape) if len(i.operands) > 1 and i.operands[1] in known else 0.0
    return in_memory(i.shape) + sum(in_memory(known[name].shape) for name in i.operands if name in known)


def fusion_bytes(i: Instruction, inside: list[Instruction], known: dict[str, Instruction]) -> float:
    """Bytes in and out of a fusion: a parameter that is only sliced counts its slices, one updated in place its update."""
    local = {j.name: j for j in inside}
    users = collections.defaultdict(list)
    for j in inside:
        for name in j.operands:
            users[name].append(j)
    total, in_place = 0.0, set()
    for j in inside:
        if j.op == "dynamic-update-slice" and len(j.operands) > 1:
            source = j.operands[0]
            while source in local and local[source].op in ("bitcast", "copy", "convert"):
                source = local[source].operands[0]
            if source in local and local[source].op == "parameter":
                in_place.add(source)
                total += 2 * in_memory(local[j.operands[1]].shape)
    for j in inside:
        if j.op != "parameter" or j.name in in_place:
            continue
        readers = [k for reader in users[j.name] for k in (users[reader.name] if reader.op == "bitcast" else [reader])]
        if readers and all(k.op in ("dynamic-slice", "slice", "gather") for k in readers):
            total += sum(in_memory(k.shape) for k in readers)
        else:
            total += in_memory(j.shape)
    return total + (0.0 if in_place else in_memory(i.shape))


def groups_of(rest: str) -> list[list[int]] | None:
    """The device groups of a collective, one of them written out; None where all devices take part."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        import numpy as np

        dims = [int(n) for n in found[3].split(",")]
        ids = np.arange(math.prod(dims)).reshape(dims)
        if found[4]:
            ids = ids.transpose([int(n) for n in found[4].split(",")])
        return ids.reshape(int(found[1]), int(found[2])).tolist()
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = {name: int(n) for name, n in re.findall(r"'([\w.]+)'=(\d+)", found[1])}
        moving = set(re.findall(r"'([\w.]+)'", found[2]))
        return [_along(sizes, moving)]
    if found := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", rest):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])]
    if found := re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", rest):
        pairs = [[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", found[1])]
        return [pair for pair in pairs if pair[0] != pair[1]][:1] or None
    return None


def _along(sizes: dict[str, int], moving: set[str]) -> list[int]:
    """Numbers (row-major) of the devices that differ from the first one along some axes only."""
    out, stride = [0], 1
    for name, n in reversed(sizes.items()):
        if name in moving:
            out = [device + i * stride for i in range(n) for device in out]
        stride *= n
    return sorted(out)


def axis_of(rest: str, mesh_shape: dict[str, int], ways: int) -> str:
    """The mesh axes along which the devices of a group differ (device numbers are row-major over the mesh)."""
    groups = groups_of(rest)
    if not groups:
        return "+".join(name for name, n in mesh_shape.items() if n > 1)
    places = []
    for device in groups[0]:
        place, left = {}, device
        for name, n in reversed(mesh_shape.items()):
            place[name], left = left % n, left // n
        places.append(place)
    return "+".join(name for name in mesh_shape if len({place[name] for place in places}) > 1) or "none"


def between_slices(i: Instruction, known: dict[str, Instruction]) -> tuple[str, float] | None:
    """(collective, bytes that one device sends) of what goes to the host for the network between slices."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', i.rest)
    if not kind:
        return None
    target = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', i.rest)  # slices x devices
    ends = [[int(n) for n in part.split(":")] for part in target[1].split(",")] if target else []
    slices = sum(part[-1] - part[0] + 1 for part in ends)
    given = sum(size(known[name].shape) for name in i.operands if name in known)
    op = kind[1].lower().replace("_", "-")
    return op, sent_bytes(op, given, max(2, slices))


def collective(i: Instruction, op: str, known: dict[str, Instruction]) -> tuple[float, int]:
    """(bytes that one device sends, devices in its group)."""
    groups = groups_of(i.rest)
    ways = len(groups[0]) if groups else 2
    return sent_bytes(op, sum(size(known[name].shape) for name in i.operands if name in known), ways), ways


def sent_bytes(op: str, given: float, ways: int) -> float:
    """Bytes that one of `ways` devices sends for `given` bytes of its own, by the ring algorithm."""
    share = (ways - 1) / ways
    if op == "all-gather":
        return given * (ways - 1)
    if op == "all-reduce":
        return 2 * given * share
    if op == "collective-permute":
        return given
    return given * share
