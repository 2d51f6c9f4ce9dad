"""Barriers at which threads spin instead of sleeping.

Sleeping and waking take some 60 µs; a step of a kernel takes a few. So threads that share lanes
increment a counter and spin until all have arrived, and a thread that waits for work spins for a
moment before it sleeps. After a while each poll yields the core first, as another thread may need
it. (Without yielding, two threads on one core took 4 ms a step, the system's time slice.) A counter
is an int64 array: the count, and the number of polls that yielded.
"""

import os

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import alloca_once_value

from streamrnn.nn.simd.jit import I1, intrinsic, on_demand

COUNTER = ir.IntType(64)
POLLS_PER_YIELD = 500
"""Number of polls, some 10 µs, after which every further poll yields the core."""
FOREVER = 1 << 62
_WHOLE_SYSTEM = ir.IntType(32)(15)


def pause(builder: ir.IRBuilder) -> None:
    """Emit the CPU's instruction for polling loops, if one is known.

    It leaves resources to a sibling thread, saves power, and limits outstanding loads. On ARM
    `yield` does nothing on most cores; `isb` waits for some 10 ns, as `pause` does.
    """
    triple = builder.module.triple
    if triple.startswith(("x86", "i686")):
        _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
    elif triple.startswith(("aarch64", "arm64")):
        _call(builder, "llvm.aarch64.isb", ir.VoidType(), _WHOLE_SYSTEM)


@intrinsic
def increment(typingctx, counter):
    """Add 1 to counter[0].

    A thread that sees the new count also sees all earlier writes of the thread that added 1.
    """

    def emit(context, builder, sig, args):
        place = context.make_array(sig.args[0])(context, builder, args[0]).data
        builder.atomic_rmw("add", place, COUNTER(1), "seq_cst")

    return types.void(counter), emit


@intrinsic
def spin_until(typingctx, counter, expected, looks):
    """Return once counter[0] is `expected` or more, or after `looks` polls."""

    def emit(context, builder, sig, args):
        place = context.make_array(sig.args[0])(context, builder, args[0]).data
        left = alloca_once_value(builder, args[2])
        look, wait, after = (builder.append_basic_block(name) for name in ("look", "wait", "seen"))
        builder.branch(look)
        builder.position_at_end(look)
        arrived = builder.load_atomic(place, "seq_cst", 8)
        remaining = builder.sub(builder.load(left), COUNTER(1))
        builder.store(remaining, left)
        missing = builder.icmp_signed("<", arrived, args[1])
        patient = builder.icmp_signed(">", remaining, COUNTER(0))
        builder.cbranch(builder.and_(missing, patient), wait, after)
        builder.position_at_end(wait)
        pause(builder)
        if hasattr(os, "sched_yield"):
            long = builder.icmp_signed(
                "<", remaining, builder.sub(args[2], COUNTER(POLLS_PER_YIELD))
            )
            with builder.if_then(long, likely=False):
                _call(builder, "sched_yield", ir.IntType(32))
                yields = builder.gep(place, [COUNTER(1)])
                builder.atomic_rmw("add", yields, COUNTER(1), "monotonic")
        builder.branch(look)
        builder.position_at_end(after)

    return types.void(counter, types.int64, types.int64), emit


@on_demand("spin_until", types.void(I1, types.int64, types.int64))
def spinner(counter, expected, looks):
    """Call `spin_until` from Python, without the GIL."""
    spin_until(counter, expected, looks)


@intrinsic
def current_core(typingctx):
    """Return the core that the thread runs on; -1 where threads cannot be pinned."""

    def emit(context, builder, sig, args):
        if not hasattr(os, "sched_setaffinity"):
            return ir.IntType(32)(-1)
        return _call(builder, "sched_getcpu", ir.IntType(32))

    return types.int32(), emit


@on_demand("core", types.int32())
def core():
    """Call `current_core` from Python."""
    return current_core()


def _call(builder, name, result, *arguments):
    """Emit a call of a C function or an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)
