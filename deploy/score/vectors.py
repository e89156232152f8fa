"""Inputs and reference scores that hold the node's evaluator to onnxruntime, and small models for them.

Real exports use little of the format; the models written out here use what else the node takes: all four
comparisons, missing values to either side, averages, base values, trees of one leaf.
"""

import numpy as np
import onnx
import onnxruntime
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from features import NAMES

COUNT = 10_000


def reference(model, rows):
    """The scores of onnxruntime, one thread, so that it adds trees in their order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(["score"], {"features": rows.astype(np.float32)})
    return np.ascontiguousarray(scores[:, -1])


def _attribute(model, name):
    found = [a for a in model.graph.node[0].attribute if a.name == name]
    return onnx.helper.get_attribute_value(found[0])


def inputs(r, rows, model):
    """10,000 rows: generated clicks; then clicks with features exactly at a threshold of the model or one
    float beside it; then with NaN and infinities; then any bits at all."""
    chosen = rows[r.choice(len(rows), COUNT, replace=False)].copy()
    splits = {}
    columns = zip(*(_attribute(model, f"nodes_{c}") for c in ("modes", "featureids", "values")))
    for mode, feature, value in columns:
        if mode != b"LEAF":
            splits.setdefault(feature, []).append(np.float32(value))
    for row in chosen[6000:8000]:
        for feature, values in splits.items():
            if r.random() < 0.5:
                value = values[r.integers(len(values))]
                toward = np.float32([value, np.inf, -np.inf][r.integers(3)])
                row[feature] = np.nextafter(value, toward)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    for row in chosen[8000:9500]:
        where = r.random(len(row)) < 0.3
        row[where] = odd[r.integers(len(odd), size=where.sum())]
    bits = r.integers(0, 1 << 32, size=chosen[9500:].shape, dtype=np.uint64).astype(np.uint32)
    chosen[9500:] = bits.view(np.float32)
    return chosen


def _tree(r, rows, depth, weight):
    """One random tree as a list of nodes, children after their parents, unbalanced."""
    nodes = []

    def grow(left):
        index = len(nodes)
        nodes.append(None)
        if left == 0 or (index and r.random() < 0.25):
            nodes[index] = ("LEAF", 0, 0.0, 0, 0, 0, weight())
            return index
        feature = int(r.integers(len(NAMES)))
        known = rows[:, feature][np.isfinite(rows[:, feature])]
        split = float(np.float32(known[r.integers(len(known))])) if len(known) else 0.5
        mode = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE"][r.integers(4)]
        true, false = grow(left - 1), grow(left - 1)
        nodes[index] = (mode, feature, split, true, false, int(r.random() < 0.5), 0.0)
        return index

    grow(depth)
    return nodes


def _written(r, rows, bare, operator, depths, weight, missing=True, **attributes):
    """A model of random trees, one for each of `depths`."""
    kind = "class" if operator == "TreeEnsembleClassifier" else "target"
    column = {name: [] for name in ("treeids", "nodeids", "modes", "featureids", "values",
                                    "truenodeids", "falsenodeids", "missing_value_tracks_true")}
    leaves = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree, depth in enumerate(depths):
        for index, (mode, feature, split, true, false, tracks, value) in enumerate(
            _tree(r, rows, depth, weight)
        ):
            for name, entry in zip(column, (tree, index, mode, feature, split, true, false, tracks)):
                column[name].append(entry)
            if mode == "LEAF":
                for name, entry in zip(leaves, (tree, index, 0, value)):
                    leaves[name].append(entry)
    if not missing:
        del column["missing_value_tracks_true"]
    given = {f"nodes_{name}": entries for name, entries in column.items()}
    given |= {f"{kind}_{name}": entries for name, entries in leaves.items()}
    given |= {"classlabels_int64s": [0, 1]} if kind == "class" else {"n_targets": 1}
    outputs = ["label", "score"] if kind == "class" else ["score"]
    node = onnx.helper.make_node(operator, ["x"], outputs, domain="ai.onnx.ml", **given, **attributes)
    graph = onnx.helper.make_graph([node], "written", [], [])
    return bare(onnx.helper.make_model(graph), "written out for a test")


def variants(rows, labels, bare):
    """Named models beside the sample."""
    r = np.random.default_rng(7)
    some = slice(0, 8000)
    known = np.nan_to_num(rows[some], nan=-1.0)
    forest = RandomForestClassifier(12, max_depth=6, random_state=7, n_jobs=1).fit(known, labels[some])
    boosted = GradientBoostingClassifier(n_estimators=12, max_depth=4, random_state=7)
    boosted.fit(known, labels[some])
    opset = {"": 15, "ai.onnx.ml": 3}
    for name, trained in [("random_forest", forest), ("gradient_boosting", boosted)]:
        exported = to_onnx(trained, known[:1], options={"zipmap": False}, target_opset=opset)
        yield name, bare(exported, "scikit-learn on generated traffic")
    classifier, regressor = "TreeEnsembleClassifier", "TreeEnsembleRegressor"

    def margin():
        return float(np.float32(r.normal(0, 0.8)))

    def share():
        return float(np.float32(r.uniform(0, 0.12)))

    yield "comparisons", _written(
        r, rows, bare, classifier, [6, 0, 3, 8, 5, 7], margin, post_transform="LOGISTIC", base_values=[-0.3]
    )
    yield "no_missing", _written(
        r, rows, bare, classifier, [5, 6, 4], margin, missing=False, post_transform="LOGISTIC"
    )
    yield "sum", _written(
        r, rows, bare, regressor, [4, 5, 6, 3, 5, 4], share, aggregate_function="SUM", base_values=[0.15]
    )
    yield "average", _written(
        r, rows, bare, regressor, [4, 6, 5], lambda: float(np.float32(r.uniform(-0.2, 1.2))),
        aggregate_function="AVERAGE",
    )
