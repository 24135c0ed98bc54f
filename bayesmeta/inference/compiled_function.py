"""A function of tensors as compiled code that is kept: for loops that call it thousands of times.

Whatever the function takes from elsewhere (theta, data) becomes an input of the recording, and what follows from that
alone is computed once. So two recordings that differ in the values of these alone are the same program, which is
compiled once in a process: adapting to other tasks of the same shape compiles nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from bayesmeta.errors import BayesMetaError, UnsupportedError
from bayesmeta.torch_private import compile_graph, record_graph

MOST_PROGRAMS = 16
_programs: OrderedDict[tuple[object, ...], Callable[..., Any]] = OrderedDict()


def recorded(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], name: str
) -> tuple[fx.GraphModule, list[Tensor]]:
    """The function as a graph of its inputs and of further ones, and the values of the latter.

    Args:
        function: tensors to tensors. It may change inputs in place.
        inputs: of the shapes, strides and precisions that it will be called with.
        name: of what it computes, for errors.

    Raises:
        UnsupportedError: its Python code depends on the values of tensors.

    Example:
        >>> theta, x = torch.ones(2), torch.tensor([1.0, 2.0])
        >>> graph, values = recorded(lambda x: [x * (2.0 * theta).exp()], [x], "a product")
        >>> [bool(value.allclose((2.0 * theta).exp())) for value in values]  # what x does not enter
        [True]
        >>> graph(x, *values)[0].log()
        tensor([2.0000, 2.6931])
    """
    # a tensor that is given twice would be recorded as one
    inputs = [value.detach().clone() for value in inputs]
    try:
        graph = record_graph(lambda *values: tuple(function(*values)), inputs)
    except BayesMetaError:
        raise
    except RuntimeError as error:
        raise UnsupportedError(
            f"expected {name} of nothing but tensor operations, got {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}. Likely cause: Python code that depends on the values of tensors "
            "(bool, item, a mask as an index): use compile=False"
        ) from error
    return graph, _lifted(graph)


def compiled(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], name: str
) -> Callable[..., Sequence[Tensor]]:
    """The function as code that inductor compiles: seconds, unless the same operations were compiled before.

    Args:
        function: tensors to tensors. It may change inputs in place.
        inputs: of the shapes, strides and precisions that it will be called with.
        name: of what it computes, for errors.

    Raises:
        UnsupportedError: it cannot be recorded, or not compiled.

    Example:
        A log joint is compiled with the sampler's own step, as compiling takes too long for an example:

        >>> import bayesmeta as bm
        >>> quick = bm.inference.NUTS(num_chains=4, num_draws=1000, num_warmup=1000, compile=True)
        >>> quick.compile
        True
    """
    graph, values = recorded(function, inputs, name)
    given = [*inputs, *values]
    key = (graph.code, torch.get_num_threads(), *[(v.shape, v.stride(), v.dtype, v.device) for v in given])
    run = _programs.pop(key, None)
    if run is None:
        try:
            run = compile_graph(graph, given)
        except Exception as error:  # all of it is torch's own code, and its errors have no common base
            raise UnsupportedError(
                f"expected to compile {name} with inductor, got {type(error).__name__}: {error}. Likely cause: no C++ "
                "compiler (install g++), or an operation that inductor does not know: use compile=False"
            ) from error
    _programs[key] = run
    while len(_programs) > MOST_PROGRAMS:
        _programs.popitem(last=False)
    program = run
    return lambda *tensors: program(*tensors, *values)


def num_programs() -> int:
    """How many compiled programs are kept in this process.

    Example:
        >>> num_programs() <= 16
        True
    """
    return len(_programs)


def _lifted(graph: fx.GraphModule) -> list[Tensor]:
    """Make inputs of what does not depend on the inputs, and return its values."""
    known: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(graph, node.target)
        elif (
            node.op == "call_function" and node.all_input_nodes and all(each in known for each in node.all_input_nodes)
        ):
            schema = getattr(node.target, "_schema", None)
            if schema is None or not (schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags):
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
                with torch.no_grad():
                    known[node] = node.target(*args, **kwargs)
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    values: list[Tensor] = []
    used = [node for node in known if any(user not in known for user in node.users)]
    with graph.graph.inserting_after(places[-1]):
        for node in reversed(used):
            value = graph.graph.placeholder(f"value_{len(values)}")
            node.replace_all_uses_with(value, delete_user_cb=lambda user: user not in known)
            values.insert(0, known[node].detach())
    for node in reversed(list(known)):
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return values
