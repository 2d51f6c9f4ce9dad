"""Threads that take a few lanes together, more of them than there are cores."""

import inspect
import os
import platform
import time
from functools import partial
from typing import Any

import kernelcases
import llvmlite.binding as llvm
import numpy as np
import pytest
from kernelcases import KINDS, Case
from llvmlite import ir
from numba import types
from selection import first_quick, slow

from streamrnn.nn.kernels import one_thread, set_threads, team
from streamrnn.nn.simd import jit, recurrent, spin_barrier


@pytest.mark.parametrize("kind", first_quick(KINDS))
def test_threads_that_wait_for_each_other_in_vain_go_on_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes late is not waited for at every step: the first takes over, to the bit. Slow:
    kinds other than the first."""
    alone = kernelcases.share_lanes(monkeypatch)
    together, late = team.together, False

    def work_late(work, barrier, parts: int, part: int) -> None:
        while late and part == 1 and barrier[1] < recurrent.START_PATIENCE * (parts - 1):
            time.sleep(1e-4)  # until the others have lost patience, however busy the machine is
        work(part)

    def together_late(work, parts: int, release) -> bool:
        barrier = inspect.getclosurevars(release).nonlocals["barrier"]
        return together(partial(work_late, work, barrier, parts), parts, release)

    monkeypatch.setattr(team, "together", together_late)
    case, rng = Case(kind, units=320), np.random.default_rng(3)
    set_threads((os.cpu_count() or 1) + 3)
    try:
        for late in [False, True] * 8:  # noqa: B007 - what work_late sees
            lanes, steps = int(rng.integers(1, 5)), int(rng.integers(2, 200))
            x, start = case.window(lanes, steps), case.start(lanes)
            lengths = rng.integers(0, steps + 1, lanes)
            lengths[0] = steps
            with one_thread():
                wanted, ends = case.run(x, start, lengths=lengths)
            y, states = case.run(x, start, lengths=lengths)
            np.testing.assert_array_equal(y, wanted)
            np.testing.assert_array_equal(states, ends)
    finally:
        set_threads(0)
    assert len(alone) == 16
    assert all(alone[1::2])


INSTRUCTIONS = {"x86_64": "pause", "aarch64": "isb", "arm64": "isb"}


def instructions(code: str) -> list[str]:
    return [line.split()[0] for line in code.splitlines() if line.startswith("\t")]


@pytest.mark.parametrize(
    ("triple", "wanted"),
    [
        ("x86_64-unknown-linux-gnu", ["pause"]),
        ("aarch64-unknown-linux-gnu", ["isb"]),
        ("arm64-apple-darwin", ["isb"]),
        ("powerpc64le-unknown-linux-gnu", []),
    ],
)
def test_each_cpu_pauses_in_its_own_way(triple: str, wanted: list[str]) -> None:
    """One that is not known gets no instruction, and no call that its code could not be linked to.

    Compiled for other machines here: LLVM in llvmlite's wheels knows them all.
    """
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        machine = llvm.Target.from_triple(triple).create_target_machine()
    except RuntimeError:
        pytest.skip(f"this LLVM does not compile for {triple}")
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "wait")
    builder = ir.IRBuilder(function.append_basic_block())
    spin_barrier.pause(builder)
    builder.ret_void()
    code = instructions(machine.emit_assembly(llvm.parse_assembly(str(module))))
    assert [name for name in code if name in ("pause", "isb", "bl", "callq")] == wanted


@slow
@pytest.mark.skipif(platform.machine() not in INSTRUCTIONS, reason="a CPU without such a thing")
def test_a_thread_that_watches_pauses() -> None:
    """Slow: machine code of a function that is compiled for it."""
    signature = types.void(types.Array(types.int64, 1, "C"), types.int64, types.int64)

    @jit.kernel
    def spin(counter, expected, looks):
        spin_barrier.spin_until(counter, expected, looks)

    dispatcher: Any = spin
    dispatcher.compile(signature)
    (code,) = dispatcher.inspect_asm().values()
    assert INSTRUCTIONS[platform.machine()] in instructions(code)
