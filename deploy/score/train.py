"""Trains the sample model on generated traffic and writes it with the vectors that test its evaluator.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -r deploy/score/requirements.txt
    /tmp/venv/bin/python deploy/score/train.py

Deterministic: the same packages write the same bytes. `docs/scoring.md` says how to train one's own.
"""

import argparse
import gzip
import pathlib
import zlib

import lightgbm
import numpy as np
import onnx
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.metrics import roc_auc_score

import features
import traffic
import vectors

SEED = 20261122


def bare(model, note):
    """The exported model cut to its tree node, with what the node asks for in its metadata.

    Exporters put casts, identities and multiplications by one around the trees; the node takes none.
    """
    trees = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
    if len(trees) != 1:
        raise SystemExit(f"expected one TreeEnsemble node, found {len(trees)}")
    node = onnx.NodeProto()
    node.CopyFrom(trees[0])
    classifier = node.op_type == "TreeEnsembleClassifier"
    node.input[:] = ["features"]
    node.output[:] = ["label", "score"] if classifier else ["score"]
    kept = [a for a in node.attribute if a.name != "nodes_hitrates"]
    del node.attribute[:]
    node.attribute.extend(kept)
    value = onnx.helper.make_tensor_value_info
    outputs = [value("score", onnx.TensorProto.FLOAT, [None, None])]
    if classifier:
        outputs.insert(0, value("label", onnx.TensorProto.INT64, [None]))
    inputs = [value("features", onnx.TensorProto.FLOAT, [None, len(features.NAMES)])]
    graph = onnx.helper.make_graph([node], "score", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    cut = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="weir-score-train")
    onnx.helper.set_model_props(
        cut,
        {
            "weir.note": note,
            "weir.features_version": str(features.VERSION),
            # Last in the file, and the node insists on it: a file cut anywhere is refused.
            "weir.features": ",".join(features.NAMES),
        },
    )
    onnx.checker.check_model(cut)
    return cut


def train(rows, labels):
    booster = lightgbm.LGBMClassifier(
        n_estimators=60,
        num_leaves=31,
        max_depth=8,
        learning_rate=0.15,
        min_child_samples=40,
        random_state=SEED,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    return booster.fit(rows, labels)


def report(names, labels, scores, threshold=0.5):
    print(f"area under the curve {roc_auc_score(labels, scores):.4f}; at {threshold}:")
    for name in ["clean", *traffic.ATTACKS]:
        share = float((scores[names == name] >= threshold).mean())
        print(f"  {name:20} {share:7.2%} reach it")


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{path} {len(data)} bytes, crc32 {zlib.crc32(data):08x}")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=root / "deploy/score/sample.onnx")
    parser.add_argument("--vectors", type=pathlib.Path, default=root / "tests/vectors/score")
    chosen = parser.parse_args()

    rows, labels, _ = traffic.generate(SEED, clean=40_000, attack=2_500)
    held_out, held_labels, held_names = traffic.generate(SEED + 1, clean=12_000, attack=1_000)
    trained = train(rows, labels)
    input_type = [("features", FloatTensorType([None, len(features.NAMES)]))]
    exported = convert_lightgbm(trained, initial_types=input_type, zipmap=False, target_opset=15)
    model = bare(exported, "LightGBM on generated traffic; a sample, not for live clicks")
    report(held_names, held_labels, vectors.reference(model, held_out))
    write(chosen.model, model.SerializeToString())

    inputs = vectors.inputs(np.random.default_rng(SEED), held_out, model)
    columns = np.ascontiguousarray(inputs.T, dtype="<f4").tobytes()
    write(chosen.vectors / "inputs.f32.gz", gzip.compress(columns, 9, mtime=0))
    for name, other in [("sample", model), *vectors.variants(rows, labels, bare)]:
        if name != "sample":
            write(chosen.vectors / f"{name}.onnx", other.SerializeToString())
        scores = vectors.reference(other, inputs).astype("<f4").tobytes()
        write(chosen.vectors / f"{name}.f32.gz", gzip.compress(scores, 9, mtime=0))


if __name__ == "__main__":
    main()
