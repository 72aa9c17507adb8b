"""The layers of the package: which wing may import which, and no circles."""

import ast
import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WINGS = ("saving", "rl", "inspection", "envs", "baselines", "commands", "bench")
MAY_IMPORT = {
    "saving": {"core"},
    "inspection": {"core"},
    "rl": {"core"},
    "envs": {"core"},
    "baselines": {"core", "rl"},
    "commands": {"core", "saving", "inspection"},
    "bench": {"core", "saving", "rl", "envs"},
}
OWN = {"self", "cls", "os", "_bundle", "_architecture", "_manifest", "_probe", "_safetensors", "_strict_json"}
LAZY = {
    ("core", "saving"),
    ("core", "inspection"),
}  # `MetaLoss.export`, `ml3_tf.load_meta_loss`; `MetaLoss._repr_html_`


def wing_of(module):
    """The wing of `ml3_tf.rl.rollouts` or of a path; everything at the top is the core, but for the command's start."""
    second = (module.split(".") + [""])[1].replace("__main__", "commands")
    return second if second in WINGS else "core"


def all_imports():
    """Triples: a module, one that it imports, and whether the import runs when the module is loaded."""
    paths = list((ROOT / "ml3_tf").rglob("*.py"))
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    for module, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ml3_tf":
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                yield from ((module, name, node in tree.body) for name in (names & set(modules) or {node.module}))


def test_wings_import_what_they_may():
    wrong = []
    for module, imported, is_eager in all_imports():
        own, other = wing_of(module), wing_of(imported)
        allowed = own == other or other in MAY_IMPORT.get(own, set()) or (not is_eager and (own, other) in LAZY)
        wrong += [] if allowed else [f"{module} imports {imported}"]
    assert wrong == []


def test_there_are_no_circles():
    edges = {}
    for module, imported, is_eager in all_imports():
        if is_eager and module != "ml3_tf":
            edges.setdefault(module, set()).add(imported)

    def visit(module, path):
        assert module not in path, f"a circle of imports: {' -> '.join([*path, module])}"
        for imported in edges.get(module, set()):
            visit(imported, [*path, module])

    for module in edges:
        visit(module, [])


def test_private_names_of_others_stand_in_one_module():
    """Keras's own private names are kept in `keras_internals`; nobody else reaches into another object."""
    named_tuples = {"_replace", "_fields", "_asdict", "_make"}
    found = [
        f"{path.name}: .{node.attr}"
        for path in (ROOT / "ml3_tf").rglob("*.py")
        if path.name != "keras_internals.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if node.attr not in named_tuples and not (isinstance(node.value, ast.Name) and node.value.id in OWN)
    ]
    assert found == []


def test_public_code_uses_public_names():
    """Recipes, their parts, examples and tools import names that an `__all__` lists, or a public module of a wing."""
    wrong = []
    for folder in ("recipes", "examples", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ml3_tf":
                    public = getattr(importlib.import_module(node.module), "__all__", [])
                    wrong += [f"{path.name}: {node.module}.{a.name}" for a in node.names if a.name not in public]
    assert wrong == []
