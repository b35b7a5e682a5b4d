"""Optimum's graphs put in the places that `stand_ins.py` keeps for them.

`read.py` calls `fuse` on each graph that it has traced. The invariant: the graph that is left has
one network for each stand-in, its weights in a file in the model folder, and no scalar timestep.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

from giffusion.export.optimum.data_file import DATA_FILE, move_weights
from giffusion.export.optimum.folder import OptimumFolder
from giffusion.export.optimum.networks import convert_opset, load_network
from giffusion.export.optimum.sinusoid import SINUSOID, cut_at_sinusoid
from giffusion.export.optimum.stand_ins import DOMAIN, OPERATOR

PART_FOLDERS = {"vae_decoder": "decoder", "vae_encoder": "vae"}
"""Where a model folder keeps the weights of parts that it calls otherwise."""


def fuse(path: Path, optimum: OptimumFolder) -> list[str]:
    """Replaces a graph's stand-ins by Optimum's networks and saves it in its place.

    Args:
        path: the traced graph, in the model folder; it is overwritten.
        optimum: the folder that has the networks.

    Returns:
        The files of weights that it refers to, by their paths in the model folder.

    Raises:
        ModelError: a network is not what Optimum exports for this kind of model.
    """
    model = ir.load(path)
    places = _stand_ins(model)
    networks = {part: _network(optimum.graph(part), nodes) for part, nodes in places.items()}
    # The newest of all: newer operators have no older counterparts.
    opset = max(m.opset_imports.get("", 0) for m in (model, *networks.values()))
    convert_opset(model, opset, path)
    for part, network in networks.items():
        convert_opset(network, opset, optimum.graph(part))
        _inline(model.graph, network.graph, places[part], prefix=f"{part}/")
    model.graph.opset_imports.pop(DOMAIN, None)
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)
    files = {part: f"{PART_FOLDERS.get(part, part)}/{DATA_FILE}" for part in networks}
    written = [file for part, file in files.items() if _move_weights(model, part, path, file)]
    ir.save(model, path)
    return written


def _stand_ins(model: ir.Model) -> dict[str, list[ir.Node]]:
    places: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            places.setdefault(node.attributes["part"].as_string(), []).append(node)
    return places


def _network(path: Path, nodes: list[ir.Node]) -> ir.Model:
    inputs = list(nodes[0].attributes["inputs"].as_strings())
    outputs = [node.attributes["output"].as_string() for node in nodes]
    names = ["timestep" if name == SINUSOID else name for name in inputs]
    network = load_network(path, names, outputs)
    if SINUSOID in inputs:
        cut_at_sinusoid(network, path)
    return network


def _inline(graph: ir.Graph, network: ir.Graph, places: list[ir.Node], *, prefix: str) -> None:
    """Moves a network's nodes and weights to where its stand-ins are, which are removed."""
    _feed(graph, network, places[0])
    results = {value.name: value for value in network.outputs}
    network.outputs.clear()
    for name, value in list(network.initializers.items()):
        del network.initializers[name]
        value.name = prefix + name
        graph.register_initializer(value)
    nodes = list(network)
    network.remove(nodes)
    _rename(nodes, prefix)
    graph.insert_before(places[0], nodes)
    for place in places:
        old, result = place.outputs[0], results[place.attributes["output"].as_string()]
        if old.is_graph_output():
            result.name, result.shape, result.type = old.name, old.shape, old.type
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        graph.remove(place, safe=True)


def _feed(graph: ir.Graph, network: ir.Graph, place: ir.Node) -> None:
    """Connects a network's inputs with those of its stand-in, cast where their types differ."""
    fed = dict(zip(place.attributes["inputs"].as_strings(), place.inputs, strict=True))
    for value in list(network.inputs):
        source = fed[value.name or ""]
        assert source is not None
        assert value.dtype is not None
        if value.dtype != ir.DataType.FLOAT:
            cast = ir.node("Cast", [source], {"to": value.dtype})
            graph.insert_before(place, cast)
            source = cast.outputs[0]
        network.inputs.remove(value)
        value.replace_all_uses_with(source)


def _rename(nodes: Iterable[ir.Node], prefix: str) -> None:
    """Keeps two networks' names apart, and forgets shapes, whose axes have other names here."""
    for node in nodes:
        node.name = prefix + (node.name or "")
        for value in node.outputs:
            value.name = prefix + (value.name or "")
            value.shape = value.type = None
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _rename_subgraph(attribute.as_graph(), prefix)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for subgraph in attribute.as_graphs():
                    _rename_subgraph(subgraph, prefix)


def _rename_subgraph(subgraph: ir.Graph, prefix: str) -> None:
    for value in (*subgraph.inputs, *list(subgraph.initializers.values())):
        value.name = prefix + (value.name or "")
    _rename(subgraph, prefix)


def _move_weights(model: ir.Model, part: str, path: Path, file: str) -> bool:
    initializers = model.graph.initializers.items()
    own = [value for name, value in initializers if name.startswith(f"{part}/")]
    return move_weights(own, path.parent, file)
