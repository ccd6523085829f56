"""A solver in a worker process: deaths, hangs and nonsense are STOPPED with the reason; the next model is solved."""

import gc
import io
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.programs.linear_models import CORNER, INFEASIBLE, hard_model, model
from verifier.solvers import (
    SOLVERS,
    CvxpySolver,
    HighsSolver,
    IntegerSettings,
    PulpSolver,
    Solution,
    Termination,
    WorkerSolver,
    find_solver,
)
from verifier.solvers.messages import answer_frame, read_answer, read_frame, request_frame, write_frame
from verifier.solvers.sanity import nonsense

# A worker that says it is ready, reads one request, and then does what the test says.
FAKE = """
import os, sys, time
import numpy as np
from verifier.solvers.base import Solution, Termination
from verifier.solvers.messages import answer_frame, read_frame, read_request, write_frame
requests, answers = sys.stdin.buffer, sys.stdout.buffer
write_frame(answers, ({}, {"ready": True}))
while True:
    arrays, values = read_frame(requests)
    model, seconds, settings = read_request((arrays, values))
    def answer(*parts, **named):
        write_frame(answers, answer_frame(Solution(*parts, **named), values["number"]))
"""
T = Termination


@pytest.fixture
def fake(tmp_path):
    """Return a maker of worker solvers that run the given lines for each request; all end with the test."""
    made = []

    def make(lines: str, **options) -> WorkerSolver:
        path = tmp_path / f"fake-{len(made)}.py"
        path.write_text(FAKE + textwrap.indent(textwrap.dedent(lines), "    "))
        made.append(WorkerSolver(HighsSolver(), program=(sys.executable, str(path)), **options))
        return made[-1]

    yield make
    for solver in made:
        solver.close()


def process_of(solver: WorkerSolver) -> subprocess.Popen:
    return solver._worker.process


def is_stopped(solution: Solution, reason: str) -> None:
    assert solution.termination is Termination.STOPPED
    assert solution.primal is None and solution.bound == -math.inf
    assert reason in solution.stats["status"]


@pytest.mark.parametrize("name", ["highs", "highs-ipm", "cvxpy", "pulp"])
def test_a_worker_answers_as_its_solver_does(name):
    inner, worker = find_solver(name), find_solver(f"worker:{name}")
    for some in (CORNER, INFEASIBLE):
        found, alone = worker.solve(some), inner.solve(some)
        assert found.termination is alone.termination and found.bound == alone.bound
        if alone.primal is not None:
            assert found.primal.tolist() == alone.primal.tolist()
            assert found.row_dual.tolist() == alone.row_dual.tolist()
        if alone.ray is not None:
            assert found.ray.tolist() == alone.ray.tolist()
    worker.close()


def test_one_process_serves_many_models_and_ends_on_close():
    worker = WorkerSolver(HighsSolver())
    worker.solve(CORNER)
    process = process_of(worker)
    for _ in range(5):
        assert worker.solve(CORNER).termination is Termination.OPTIMAL
    assert process_of(worker) is process and process.poll() is None
    worker.close()
    assert process.returncode is not None


def test_a_crash_is_stopped_and_the_next_model_gets_a_new_process(fake):
    worker = fake("""
        if os.environ.get("CRASHED") or not os.path.exists(sys.argv[0] + ".once"):
            open(sys.argv[0] + ".once", "w").close()
            os.kill(os.getpid(), 11)
        answer(Termination.OPTIMAL, np.array([3.0, 1.0]), bound=-11.0)
    """)
    is_stopped(worker.solve(CORNER), "signal SIGSEGV")
    assert worker.solve(CORNER).termination is Termination.OPTIMAL


def test_a_process_that_dies_says_its_last_words(fake):
    is_stopped(fake("raise SystemExit('no licence')").solve(CORNER), "exit status 1: no licence")


def test_a_process_that_dies_between_two_models_costs_one_answer():
    worker = WorkerSolver(HighsSolver())
    worker.solve(CORNER)
    process_of(worker).kill()
    is_stopped(worker.solve(CORNER), "died")
    assert worker.solve(CORNER).termination is Termination.OPTIMAL
    worker.close()


def test_a_hang_is_killed_at_the_deadline_and_a_little_grace(fake):
    worker = fake("time.sleep(600)", grace=0.2)
    started = time.monotonic()
    is_stopped(worker.solve(CORNER, 5.0), "was killed")
    assert time.monotonic() - started < 60.0, "not the ten minutes that it would sleep"
    assert worker._worker is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("answer(Termination.OPTIMAL, np.array([3.0]), bound=-11.0)", "shape (1,)"),
        ("answer(Termination.OPTIMAL, np.array([3.0, np.nan]), bound=-11.0)", "NaN"),
        ("answer(Termination.OPTIMAL, np.array([3.0, 2.0]), bound=-13.0)", "breaks the model"),
        ("answer(Termination.OPTIMAL, np.array([3.0, 1.0]), bound=-10.9)", "above the value"),
        ("answer(Termination.OPTIMAL, bound=-11.0)", "has no point"),
        ("answer(Termination.INFEASIBLE, np.array([3.0, 1.0]), bound=-11.0)", "has a point"),
        ("answer(Termination.STOPPED, bound=np.inf)", "its bound is inf"),
        ("answer(Termination.STOPPED, bound=np.nan)", "its bound is nan"),
        ("answer(Termination.OPTIMAL, np.array([3.0, 1.0]), np.array([1.0]), -11.0)", "row_dual"),
        ("answers.write(b'infeasible' * 10); answers.flush()", "bytes"),
        ("write_frame(answers, ({}, {'number': 1}))", "'bound'"),
        ("write_frame(answers, ({}, {'number': 7, 'termination': 'stopped', 'bound': 1.0, 'stats': {}}))", "request 7"),
        ("write_frame(answers, ({}, {'number': 1, 'termination': 'yes', 'bound': 1.0, 'stats': {}}))", "yes"),
        ("write_frame(answers, ({}, {'number': 1, 'termination': 'optimal', 'bound': 'x', 'stats': {}}))", "no number"),
    ],
)  # fmt: skip
def test_nonsense_is_stopped_never_an_answer(fake, answer, reason):
    worker = fake(answer)
    is_stopped(worker.solve(CORNER, 20.0), reason)
    assert worker._worker is None


def test_infeasible_is_refuted_by_a_start_that_keeps_every_row(fake):
    worker = fake("answer(Termination.INFEASIBLE, bound=np.inf)")
    is_stopped(worker.solve(CORNER, settings=IntegerSettings(start=np.array([1.0, 1.0]))), "start keeps every row")
    assert worker.solve(CORNER, settings=IntegerSettings(start=np.array([9.0, 9.0]))).termination is T.INFEASIBLE


def test_an_integer_point_between_integers_is_nonsense():
    some = model([-1], [[2]], [-math.inf], [3], [0], [5], [True])
    assert "breaks" in nonsense(some, Solution(Termination.OPTIMAL, np.array([1.5]), bound=-1.5))
    assert nonsense(some, Solution(Termination.OPTIMAL, np.array([1.0]), bound=-1.0)) is None


def test_too_little_memory_is_stopped():
    worker = WorkerSolver(HighsSolver(), memory=1 << 20)
    is_stopped(worker.solve(CORNER), "died")
    roomy = WorkerSolver(HighsSolver(), memory=3 * 2**30)
    assert roomy.solve(CORNER).termination is Termination.OPTIMAL
    roomy.close()


def test_out_of_memory_inside_the_solver_is_stopped(fake):
    worker = fake("""
        from verifier.solvers.worker_process import limit_memory, solve
        class Greedy:
            def solve(self, *_):
                return np.ones(1 << 40)
        limit_memory(4 << 30)
        write_frame(answers, answer_frame(solve(Greedy(), arrays, values), values["number"]))
    """)
    is_stopped(worker.solve(CORNER), "out of memory")
    assert process_of(worker).poll() is None, "it can go on"


def test_an_error_in_a_solver_is_its_reason():
    worker = WorkerSolver(CvxpySolver())
    with pytest.raises(ValueError, match="integer"):
        worker.solve(model([-1], [[2]], [-math.inf], [3], [0], [5], [True]))
    unlimited = WorkerSolver(CvxpySolver("SCIPY"))
    is_stopped(unlimited.solve(CORNER, 60.0), "no time limit is known")
    unlimited.close()


def test_a_program_that_is_not_there_is_stopped_and_a_missing_solver_is_named():
    worker = WorkerSolver(HighsSolver(), program=("/nowhere/python",))
    is_stopped(worker.solve(CORNER), "could not be started")
    with pytest.raises(ValueError, match="GUROBI"):
        find_solver("worker:pulp:GUROBI_CMD")
    with pytest.raises(ValueError, match="unknown solver"):
        find_solver("worker:nothing")


def test_limits_of_nodes_and_time_stop_a_search_with_a_valid_bound():
    worker = WorkerSolver(HighsSolver())
    some = hard_model()
    limited = worker.solve(some, 30.0, IntegerSettings(nodes=1))
    assert limited.termination is Termination.STOPPED and limited.stats["nodes"] <= 1
    started = time.monotonic()
    timed = worker.solve(some, 1.0)
    assert timed.termination is Termination.STOPPED and time.monotonic() - started < 30.0
    assert process_of(worker).poll() is None, "its own limit held"
    if timed.primal is not None:
        assert timed.bound <= some.cost @ timed.primal
    worker.close()


def test_a_target_ends_the_search_at_a_point_and_a_start_is_taken():
    some = hard_model(20)
    zero = np.zeros(some.columns)
    found = HighsSolver().solve(some, 20.0, IntegerSettings(target=-1.0, start=zero))
    assert found.termination is Termination.TARGET
    assert some.cost @ found.primal <= -1.0 and nonsense(some, found) is None
    # What a short search finds, a shorter one does not, but keeps where it is given.
    best = HighsSolver().solve(hard_model(), 1.5)
    values = [
        hard_model().cost @ HighsSolver().solve(hard_model(), 20.0, IntegerSettings(nodes=1, start=start)).primal
        for start in (None, best.primal)
    ]
    assert values[0] > values[1]
    assert values[1] <= hard_model().cost @ best.primal


def test_cbc_is_killed_with_its_worker():
    worker = WorkerSolver(PulpSolver(), grace=0.0)
    worker.solve(CORNER)
    group = process_of(worker).pid
    # CBC looks at its clock late: killed at 1.5 s, or back by itself; in both cases nothing of it is left.
    found = worker.solve(hard_model(), 1.5)
    assert found.termination is Termination.STOPPED
    worker.close()
    assert not any(_is_alive(pid) for pid in _members(group))


def test_no_process_outlives_its_parent_whatever_ends_it():
    code = """
        import os, signal, sys, threading, time
        from tests.programs.linear_models import CORNER, hard_model
        from verifier.solvers import HighsSolver, WorkerSolver
        # A process started in the background inherits that Ctrl-C is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        worker = WorkerSolver(HighsSolver())
        worker.solve(CORNER)
        print(worker._worker.process.pid, flush=True)
        if sys.argv[1] == "exit":
            sys.exit(0)
        threading.Timer(0.5, os.kill, (os.getpid(), getattr(signal, sys.argv[1]))).start()
        try:
            worker.solve(hard_model(), 60.0)
        except KeyboardInterrupt:
            sys.exit(130)
    """
    for how, status in (("exit", 0), ("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)):
        run = subprocess.run([sys.executable, "-c", textwrap.dedent(code), how], capture_output=True, text=True,
                             cwd=REPOSITORY, timeout=60, check=False)  # fmt: skip
        assert run.returncode == status, run.stderr
        assert not run.stderr, "no noise"
        pid = int(run.stdout)
        for _ in range(100):
            if not _is_alive(pid):
                break
            time.sleep(0.05)
        assert not _is_alive(pid), how


def test_a_fork_gets_a_process_of_its_own():
    """Two processes that ask over one pipe would read each other's answers."""
    code = """
        import os
        from tests.programs.linear_models import CORNER
        from verifier.solvers import HighsSolver, WorkerSolver
        worker = WorkerSolver(HighsSolver())
        worker.solve(CORNER)
        mine = worker._worker.process.pid
        forked = os.fork()
        found = worker.solve(CORNER).termination
        assert found == "optimal", found
        if not forked:
            assert worker._worker.process.pid != mine
            worker.close()
            os._exit(7)
        assert os.waitpid(forked, 0)[1] >> 8 == 7
        assert worker._worker.process.pid == mine and worker.solve(CORNER).termination == "optimal"
    """
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                         cwd=REPOSITORY, timeout=60, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr


def _is_alive(pid: int) -> bool:
    """Return whether a process runs; a dead one that nobody waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def _members(group: int) -> list[int]:
    lines = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [tuple(map(int, line.split())) for line in lines]
    return [pid for pid, its_group in pairs if its_group == group]


def test_a_worker_that_is_forgotten_ends_its_process():
    worker = WorkerSolver(HighsSolver())
    worker.solve(CORNER)
    process = process_of(worker)
    del worker
    gc.collect()
    assert process.returncode is not None


def test_messages_return_what_was_put_in_and_refuse_pickles():
    stream = io.BytesIO()
    settings = IntegerSettings(1e-9, 7, -2.5, np.array([1.0, 2.0]))
    write_frame(stream, request_frame(CORNER, math.inf, settings, 3))
    write_frame(stream, answer_frame(Solution(T.STOPPED, stats={"status": "x"}), 3))
    stream.seek(0)
    arrays, values = read_frame(stream)
    assert arrays["start"].tolist() == [1.0, 2.0] and values["seconds"] == math.inf
    assert (arrays["row_upper"] == CORNER.row_upper).all() and values["target"] == -2.5
    assert read_answer(read_frame(stream), 3).stats == {"status": "x"}
    with pytest.raises(EOFError):
        read_frame(stream)
    pickled = io.BytesIO()
    np.savez(pickled, json=np.array([{"a": 1}], dtype=object))
    content = pickled.getvalue()
    with pytest.raises(ValueError, match="cannot be read"):
        read_frame(io.BytesIO(len(content).to_bytes(8, "big") + content))


def test_the_table_offers_highs_in_a_worker():
    assert isinstance(SOLVERS["worker:highs"], WorkerSolver)
