"""The check of a SavedModel that ml3_tf did not write: only pure mathematics, and TensorFlow's own saving, is allowed.

It is an allow-list: an operation that is not named here is refused, including one that TensorFlow adds tomorrow. Loops
are not on the list: a loss does not need them, and they may never end.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml3_tf.saving.errors import CorruptArtifactError, UnsafeArtifactError

MAX_CONSTANT = 10_000_000  # elements, not bytes: a constant of one repeated value is small on disk
_ELEMENTWISE = """
    Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atan2 Atanh BiasAdd BiasAddGrad BiasAddV1 Cast Ceil ClipByValue Cos
    Cosh Digamma Div DivNoNan Elu EluGrad Equal Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual
    Inv InvGrad IsFinite IsInf IsNan LeakyRelu LeakyReluGrad Less LessEqual Lgamma Log Log1p LogSoftmax LogicalAnd
    LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual OnesLike Polygamma Pow RealDiv
    Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad Rint Round Rsqrt RsqrtGrad Select SelectV2 Selu SeluGrad
    Sigmoid SigmoidGrad Sign Sin Sinh Softmax Softplus SoftplusGrad Softsign SoftsignGrad Sqrt SqrtGrad Square
    SquaredDifference Sub Tan Tanh TanhGrad TruncateDiv TruncateMod Xdivy Xlog1py Xlogy ZerosLike
    SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits
"""
_ARRAYS = """
    All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BatchMatMulV3 BroadcastArgs BroadcastGradientArgs BroadcastTo
    Concat ConcatOffset ConcatV2 Const Cumprod Cumsum DynamicStitch Einsum ExpandDims Fill Gather GatherNd GatherV2
    Identity IdentityN InvertPermutation L2Loss MatMul Max Mean Min OneHot Pack Pad PadV2 Placeholder
    PlaceholderWithDefault PreventGradient Prod Range Rank ReadVariableOp Reshape ReverseV2 ScatterNd Shape ShapeN
    Size Slice Snapshot Split SplitV Squeeze StopGradient StridedSlice StridedSliceGrad Sum Tile TopKV2 Transpose
    Unpack UnsortedSegmentSum VarHandleOp VarIsInitializedOp FusedBatchNormV3 FusedBatchNormGradV3 NoOp
"""
_CALLS = "Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf"
MATHEMATICS = frozenset(f"{_ELEMENTWISE} {_ARRAYS} {_CALLS}".split())
# TensorFlow's own functions that save and restore the variables. Allowed only where no endpoint calls them.
PLUMBING = frozenset(
    "AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch "
    "StringJoin".split()
)
# Attributes that are no part of an operation's definition. What TensorFlow writes for a loss is here, and nothing by
# which its optimizers put another function in the place of the one that was named, such as `api_implements`.
_FUNCTION_ATTRIBUTES = {"_XlaMustCompile", "_construction_context", "_input_shapes", "_noinline"}
_NODE_ATTRIBUTES = {
    *("_XlaMustCompile", "_class", "_collective_manager_ids", "_gradient_op_type", "_has_manual_control_dependencies"),
    *("_lower_using_switch_merge", "_output_shapes", "_read_only_resource_inputs"),
    "_xla_propagate_compile_time_consts",
}
_OBJECTS = {"user_object", "function", "bare_concrete_function", "variable", "captured_tensor", "constant"}
_USER_OBJECTS = {
    *("_generic_user_object", "signature_map", "trackable_list_wrapper", "trackable_dict_wrapper"),
    *("trackable_tuple_wrapper", "tracking"),
}
_COLLECTIONS = {"saved_model_main_op", "variables", "trainable_variables"}


def check(saved_model: Any, source: str) -> None:
    """Raises `ArtifactError` unless a parsed `SavedModel` is pure mathematics with TensorFlow's own plumbing.

    Args:
        saved_model: A `SavedModel` message.
        source: Name of its file in errors.

    Raises:
        UnsafeArtifactError: An operation, object or asset is not allowed; the message names it.
        CorruptArtifactError: The model contradicts itself.
    """
    if len(saved_model.meta_graphs) != 1:
        raise UnsafeArtifactError(f"'{source}' holds {len(saved_model.meta_graphs)} graphs. Expected 1.")
    graph = saved_model.meta_graphs[0]
    if not graph.HasField("object_graph_def"):
        raise UnsafeArtifactError(f"'{source}' was written by TensorFlow 1, whose loader runs the graph.")
    _check_surroundings(graph, source)
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    if len(functions) != len(graph.graph_def.library.function):
        raise CorruptArtifactError(f"'{source}' has two functions with the same name.")
    pure = _reachable(functions, _roots(graph), source)
    _check_nodes(graph.graph_def.node, MATHEMATICS | PLUMBING, functions, "the graph", source)
    for name, function in functions.items():
        allowed = MATHEMATICS if name in pure else MATHEMATICS | PLUMBING
        _check_nodes(function.node_def, allowed, functions, f"function '{name}'", source)
    _check_attributes(graph.graph_def, source)


def _check_surroundings(graph: Any, source: str) -> None:
    """Refuses files, tables, resources, objects with a loader of their own, and huge variables."""
    if graph.asset_file_def:
        raise UnsafeArtifactError(f"'{source}' reads an asset, '{graph.asset_file_def[0].filename}'.")
    if unknown := set(graph.collection_def) - _COLLECTIONS:
        raise UnsafeArtifactError(f"'{source}' has the collections {sorted(unknown)}, which a loss does not need.")
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        if kind not in _OBJECTS or node.registered_name or node.registered_saver:
            raise UnsafeArtifactError(f"'{source}' holds an object of kind '{kind}' {node.registered_name!r}.")
        if kind == "user_object" and node.user_object.identifier not in _USER_OBJECTS:
            raise UnsafeArtifactError(f"'{source}' holds an object '{node.user_object.identifier}'.")
        if kind == "variable":
            _check_size(node.variable.shape, f"variable '{node.variable.name}'", source)


def _roots(graph: Any) -> set[str]:
    """The names of the functions that the loaded object may run: endpoints, and the gradients of their operations."""
    library, objects = graph.graph_def.library, graph.object_graph_def
    names = set(objects.concrete_functions)
    for node in objects.nodes:
        names |= set(node.function.concrete_functions) | {node.bare_concrete_function.concrete_function_name}
    names |= {gradient.gradient_func for gradient in [*library.gradient, *library.registered_gradients]}
    return names - {""}


def _reachable(functions: Mapping[str, Any], names: Iterable[str], source: str) -> set[str]:
    """Returns `names` and the names of all functions that they call, at any depth."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in functions:
            raise CorruptArtifactError(f"'{source}' calls a function '{name}' that it does not hold.")
        found.add(name)
        waiting += [called for node in functions[name].node_def for called in _called(node, functions)]
    return found


def _called(node: Any, functions: Mapping[str, Any]) -> list[str]:
    values = [item for value in node.attr.values() for item in [value.func, *value.list.func]]
    return [value.name for value in values if value.name] + ([node.op] if node.op in functions else [])


def _check_nodes(
    nodes: Iterable[Any], allowed: frozenset[str], functions: Mapping[str, Any], where: str, source: str
) -> None:
    for node in nodes:
        if node.op not in allowed and node.op not in functions:
            raise UnsafeArtifactError(
                f"'{source}': {where} holds the operation '{node.op}' (node '{node.name}'), which is not on the list "
                "of pure mathematics."
            )
        if missing := [name for name in _called(node, functions) if name not in functions]:
            raise CorruptArtifactError(f"'{source}' calls a function '{missing[0]}' that it does not hold.")
        if node.op == "Const":
            _check_size(node.attr["value"].tensor.tensor_shape, f"constant '{node.name}'", source)


def _check_attributes(graph: Any, source: str) -> None:
    """Refuses attributes by which TensorFlow would run something else than the graph says."""
    for function in graph.library.function:
        if unknown := set(function.attr) - _FUNCTION_ATTRIBUTES:
            raise UnsafeArtifactError(
                f"'{source}': function '{function.signature.name}' has the attribute '{min(unknown)}', which a loss "
                "does not need: TensorFlow may run another function in its place."
            )
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        if unknown := {key for key in node.attr if key.startswith("_")} - _NODE_ATTRIBUTES:
            raise UnsafeArtifactError(
                f"'{source}': node '{node.name}' has the attribute '{min(unknown)}', which a loss does not need."
            )
        if rewrites := [key for key in ("config", "config_proto", "executor_type") if _configures(node.attr, key)]:
            raise UnsafeArtifactError(
                f"'{source}': the '{rewrites[0]}' of node '{node.name}' configures TensorFlow's optimizers or executor."
            )


def _configures(attributes: Mapping[str, Any], key: str) -> bool:
    """Whether an attribute of a call is more than the devices that TensorFlow always writes."""
    if key not in attributes or not attributes[key].s:
        return False
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import config_pb2

    try:
        config = config_pb2.ConfigProto.FromString(attributes[key].s)
    except DecodeError:
        return True
    return config.HasField("graph_options") and config.graph_options != config_pb2.GraphOptions()


def _check_size(shape: Any, label: str, source: str) -> None:
    sizes = [dimension.size for dimension in shape.dim]
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_CONSTANT:
        raise UnsafeArtifactError(
            f"'{source}': {label} has shape {sizes[:8]}. At most {MAX_CONSTANT} elements are allowed."
        )
