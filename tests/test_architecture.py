"""Rules of the layout: who imports whom, that tables are complete, and that files stay small."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

from encoders.ops import OPS
from tests.conftest import REPOSITORY
from tests.shares import EVERY

# Listed bottom first: an entry imports only entries above it (and itself).
VERIFIER_ORDER = [
    "options", "fields", "npz", "verdict", "budget", "threads", "devices", "output", "zoo", "agreement", "data",
    "subject", "joint_subject", "surroundings", "batch", "properties", "metrics", "votes", "certificates", "answers",
    "runs", "summaries", "solvers", "bounds", "attacks", "detection", "witnesses", "restriction", "methods", "training",
    "pages", "commands",
    "arguments", "reports", "cli",
]  # fmt: skip
# The command that makes the shipped models trains and is no part of the package's layers.
OUTSIDE_LAYERS = {"verifier/zoo/build.py", "verifier/__init__.py", "verifier/__main__.py"}
MAXIMUM_LINES, MAXIMUM_FUNCTION, MAXIMUM_PARAMETERS = 300, 40, 8
# Kernels for a GPU, which take every array as a pointer of its own.
POINTERS = {"encoders/layers/mwd_triton.py"}
# Rewrites of a graph, which look for patterns of ops and build others in their place. The list only shrinks.
ASK_FOR_CLASSES = {"encoders/passes/expand_max_pools.py", "encoders/passes/merge_bias.py"}
SOURCES = sorted(p for package in ("encoders", "verifier") for p in (REPOSITORY / package).rglob("*.py"))
CHECKER = sorted((REPOSITORY / "verifier_check").rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported_modules(path: Path) -> set[str]:
    """Return the modules that a file imports at run time, wherever the import stands."""
    names: set[str] = set()
    for node in _runtime_nodes(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _runtime_nodes(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _runtime_nodes(node)


def test_encoders_never_imports_verifier_or_a_solver():
    for path in (REPOSITORY / "encoders").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & {"verifier", "highspy", "cvxpy", "pulp", "random"}, path


def test_solver_libraries_are_imported_by_backends_only():
    for path in SOURCES:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        if roots & {"highspy", "cvxpy", "pulp"}:
            assert path.name.endswith("_backend.py"), path


def test_the_exact_checker_is_small_files_of_the_standard_library():
    for path in CHECKER:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert roots <= sys.stdlib_module_names | {"verifier_check"}, path
        assert len(path.read_text("utf-8").splitlines()) <= MAXIMUM_LINES and ast.get_docstring(tree_of(path)), path


def test_checking_a_run_loads_no_solver_and_no_bound_code():
    """Whatever imports what: after a check none of them is among the modules of the process."""
    program = "import sys, verifier.commands.check; print(*(name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "verifier.certificates.certificate" in loaded
    for package in ("verifier.solvers", "verifier.bounds", "verifier.methods", "highspy", "cvxpy", "pulp"):
        assert not [name for name in loaded if name == package or name.startswith(f"{package}.")], package


def test_attacking_loads_no_method_no_solver_and_no_bound_but_intervals():
    """Whatever imports what: a plain attack pays for none of them, nor for what numba compiles; nor does its gradient
    for sympy, which torch would take a second for, on every start.
    """
    program = (
        "import sys, verifier.commands.attack; print(*(name for name in sys.modules))\n"
        "import torch\nfrom tests.networks.chains import random_relu_network\n"
        "from verifier.attacks.source import Source\n"
        "Source(random_relu_network(0, (2, 3, 2))).differentiate(torch.rand(1, 2), torch.ones_like)\n"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    modules, sympy = done.stdout.splitlines()
    assert sympy == "False"
    loaded = modules.split()
    assert "verifier.witnesses.find" in loaded
    others = {name for name in loaded if name.startswith("verifier.bounds.")} - {"verifier.bounds.interval"}
    assert not others
    absent = ("verifier.solvers", "verifier.methods", "verifier.restriction", "highspy", "cvxpy", "pulp", "numba")
    for package in absent:
        assert not [name for name in loaded if name == package or name.startswith(f"{package}.")], package


def test_methods_do_not_import_one_another():
    """What two of them need lies below them, or is a tool that all may use; the exceptions only get fewer."""
    table, tools = {"__init__", "suitable"}, {"base", "bisection", "in_memory", "one_by_one", "paused"}
    # On chains of MWD layers an exact answer is contraction that does not give up.
    exceptions = {("exact", "contraction")}
    imports = {
        (path.stem, name.split(".")[2])
        for path in (REPOSITORY / "verifier" / "methods").glob("*.py")
        for name in imported_modules(path)
        if name.startswith("verifier.methods.") and path.stem not in table
    }
    assert {(own, other) for own, other in imports if other not in {own, *tools}} == exceptions


def test_verifier_imports_only_upwards():
    for path in (REPOSITORY / "verifier").rglob("*.py"):
        relative = path.relative_to(REPOSITORY)
        if relative.as_posix() in OUTSIDE_LAYERS:
            continue
        own = relative.parts[1].removesuffix(".py")
        assert own in VERIFIER_ORDER, f"{relative}: give it a place in VERIFIER_ORDER"
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] == "verifier" and len(parts) > 1:
                assert VERIFIER_ORDER.index(parts[1]) <= VERIFIER_ORDER.index(own), f"{relative} imports {name}"


def test_packages_import_without_cycles_and_without_torch():
    heavy = ("torch", "matplotlib", "sklearn")
    code = f"import sys, verifier, encoders, verifier.cli; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]"


def test_verify_loads_no_library_that_easy_questions_do_not_need():
    """Each takes a tenth of a second and more of every answer."""
    heavy = ("scipy.sparse", "scipy.optimize", "numba", "matplotlib", "highspy", "onnxruntime")
    code = f"import sys, verifier.commands.verify; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert result.stdout.strip() == "[]"


def test_tests_mirror_the_tree():
    """`tests/<package>/<folder>/test_<file>[_<topic>].py`: a package's own name counts as a file of its folder."""
    for package in ("encoders", "verifier"):
        for path in (REPOSITORY / "tests" / package).rglob("test_*.py"):
            folder = REPOSITORY / path.relative_to(REPOSITORY / "tests").parent
            modules = {folder.name} | {p.stem for p in folder.glob("*.py")}
            name = path.stem.removeprefix("test_")
            assert folder.is_dir() and any(name == m or name.startswith(f"{m}_") for m in modules), (
                f"{path.relative_to(REPOSITORY)} is named for no module of {folder.relative_to(REPOSITORY)}"
            )


def test_no_test_imports_another():
    """What tests share lies in rooms: oracles, networks, programs, runs, the cases of a table."""
    # Programs that tests start in other processes are strings, so the text is asked and not its syntax.
    other = re.compile(r"^\s*(?:(?:from|import)\s+(?:[\w.]*\.)?|from\s+tests[\w.]*\s+import\s+.*\b)test_", re.MULTILINE)
    for path in (REPOSITORY / "tests").rglob("*.py"):
        assert not other.search(path.read_text(encoding="utf-8")), path.relative_to(REPOSITORY)


def test_every_share_is_of_a_test_that_exists():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert set(EVERY) <= {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_a_file_holds_one_idea_and_says_which():
    lines = {path.relative_to(REPOSITORY).as_posix(): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not {name: count for name, count in lines.items() if count > MAXIMUM_LINES}
    assert not [path for path in SOURCES if not ast.get_docstring(tree_of(path))], "a module starts with a docstring"


def test_a_function_fits_the_eye():
    too_long, too_many = [], []
    for path in SOURCES:
        file = path.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                if node.end_lineno - node.lineno + 1 > MAXIMUM_FUNCTION:
                    too_long.append(f"{file}: {node.name}")
                names = [name.arg for name in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len(names) - (names[:1] in (["self"], ["cls"]))
                if count > MAXIMUM_PARAMETERS and file not in POINTERS:
                    too_many.append(f"{file}: {node.name}")
    assert not too_long and not too_many


def test_no_module_imports_itself_by_way_of_others_nor_for_types():
    """Strongly connected parts of the graph of imports, those under TYPE_CHECKING included, are single modules."""
    modules = {_module(path): path for path in SOURCES}
    imports = {name: _all_imports(path) & modules.keys() - {name} for name, path in modules.items()}
    while leaves := [name for name, needed in imports.items() if not needed & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports, "in a cycle, or in need of one"


def _module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _all_imports(path: Path) -> set[str]:
    """Return the modules that a file imports; of a package whose submodule is meant, the submodule alone."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if (REPOSITORY / inner.replace(".", "/")).with_suffix(".py").exists() else node.module)
    return found


def test_what_class_an_op_has_is_asked_by_ops_and_readers_alone():
    """Everybody else reads a property of `Op`, so that a new op is one file, one table line, one row of laws."""
    asking = set()
    for path in SOURCES:
        relative = path.relative_to(REPOSITORY).as_posix()
        if not relative.startswith(("encoders/ops/", "encoders/formats/")) and _asks_for_classes(path):
            asking.add(relative)
    assert asking == ASK_FOR_CLASSES


def _asks_for_classes(path: Path) -> bool:
    """Return whether a file names classes of ops in isinstance, a match, a comparison or a table, or a kind of op."""
    tree = tree_of(path)
    origins = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    ops = {alias.asname or alias.name for node in origins if "encoders.ops" in node.module for alias in node.names}
    asked: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked.append(node.args[1])
        elif isinstance(node, ast.MatchClass):
            asked.append(node.cls)
        elif isinstance(node, ast.Compare):
            asked += node.comparators
            if ast.unparse(node.left).endswith("op.kind"):
                return True
        elif isinstance(node, ast.Dict):
            asked += [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Tuple | ast.List):
            asked += [part for part in node.elts if isinstance(part, ast.Name)]
    names = {part.id for node in asked for part in ast.walk(node) if isinstance(part, ast.Name)}
    return bool(names & (ops - {"OPS", "Op"}))


def test_every_op_is_under_its_own_name_and_in_the_conformance_table():
    from tests.conformance.op_cases import CASES

    assert {name: op.kind for name, op in OPS.items()} == {name: name for name in OPS}
    assert set(CASES) == set(OPS)
