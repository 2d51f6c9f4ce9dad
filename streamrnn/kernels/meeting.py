"""A place where threads inside kernels wait for each other.

For one lane of many units: a step takes microseconds, so its threads cannot go back to Python, nor
sleep, between one step and the next. They count up a number and watch it; after a while, as the
other may wait for this very core, each look lets others run first. (Without that, two threads that
the system had put on one core took 4 ms a step, its time slice.)
"""

import os

from llvmlite import ir
from numba.core import types
from numba.np.arrayobj import make_array

from streamrnn.kernels.jit import intrinsic

COUNTER = ir.IntType(64)
LOOKS = 500  # some 10 µs


@intrinsic
def meet(typingctx, gate, expected):
    """Add 1 to gate[0] and return once it is `expected` or more.

    With n threads the k-th meeting expects n*k. What a thread wrote before is seen by all after.
    """

    def emit(context, builder, sig, args):
        counter = make_array(sig.args[0])(context, builder, args[0]).data
        builder.atomic_rmw("add", counter, COUNTER(1), "seq_cst")
        before = builder.block
        look, wait, after = (builder.append_basic_block(name) for name in ("look", "wait", "met"))
        builder.branch(look)
        builder.position_at_end(look)
        looks = builder.phi(COUNTER)
        count = builder.load_atomic(counter, "seq_cst", 8)
        builder.cbranch(builder.icmp_signed(">=", count, args[1]), after, wait)
        builder.position_at_end(wait)
        if builder.module.triple.startswith(("x86", "i686")):  # leaves room for a sibling thread
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        if hasattr(os, "sched_yield"):
            long = builder.icmp_signed(">", looks, COUNTER(LOOKS))
            with builder.if_then(long, likely=False):
                _call(builder, "sched_yield", ir.IntType(32))
        looks.add_incoming(COUNTER(0), before)
        looks.add_incoming(builder.add(looks, COUNTER(1)), builder.block)
        builder.branch(look)
        builder.position_at_end(after)

    return types.void(gate, types.int64), emit


def _call(builder, name, result):
    """Call a C function or an intrinsic of LLVM that takes nothing."""
    kind = ir.FunctionType(result, [])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [])
