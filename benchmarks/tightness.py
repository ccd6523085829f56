"""How tight every method is on several models: `verifier compare` as one table in Markdown.

    python benchmarks/tightness.py --digits-inputs 100
    python benchmarks/tightness.py --models A.onnx B.onnx --data mnist --data-dir MNIST --epsilon 0.02 --inputs 50

Without --models: the three shipped ones. Runs go to --out, so that an interrupted table continues.
"""

import argparse
from pathlib import Path

from verifier import compare

# Radii at which the shipped models have certified, falsified and open inputs.
SHIPPED = {"digits-relu": 0.05, "digits-conv": 0.05, "digits-mwd": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=())
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epsilon", type=float, default=0.02)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--digits-inputs", type=int, default=100)
    parser.add_argument("--methods", nargs="+", default=())
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "tightness")
    options = parser.parse_args()
    jobs = [(model, options.data, options.epsilon, options.inputs) for model in options.models]
    if not jobs:
        jobs = [(model, "digits", epsilon, options.digits_inputs) for model, epsilon in SHIPPED.items()]
    print("| model | method | certified | falsified | mean lower | mean upper | gap closed | median s |")
    print("|" + " --- |" * 8)
    for model, data, epsilon, inputs in jobs:
        result = compare(
            model, data, epsilon, methods=options.methods, limit=inputs, data_dir=options.data_dir,
            time_limit=options.time_limit, out=options.out / f"{Path(model).stem}-{epsilon:g}",
        )  # fmt: skip
        for row in result.rows:
            closed = "" if row.gap_closed is None else f"{row.gap_closed:.1%}"
            print(
                f"| {Path(model).stem} ({inputs} at {epsilon:g}) | {row.method} | {row.certified} | {row.falsified} | "
                f"{row.mean_lower:.4f} | {row.mean_upper:.4f} | {closed} | {row.median_seconds:.4f} |",
                flush=True,
            )
        if result.violations:
            raise SystemExit(f"{model}: {len(result.violations)} contradictions, see {result.records}")


if __name__ == "__main__":
    main()
