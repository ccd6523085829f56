"""Certify a model on a SLURM cluster: an array of shards by submitit, and one run of all of them, which is checked.

Where there is no SLURM submitit runs the shards on this machine; without submitit (`pip install submitit`) this script
does, one after the other. A shard that fails or is killed goes on where it was when it is started again.
"""

import tempfile
from pathlib import Path

from verifier import certify, check, merge

MODEL, DATA, EPSILON, SHARDS = "digits-relu", "digits", 0.02, 3


def work_on(shard: str, out: Path) -> int:
    """Return how many inputs of a shard are certified; its run is kept in a folder."""
    return certify(MODEL, DATA, [EPSILON], method="crown", shard=shard, out=out).results[0].certified


def main() -> None:
    """Work on all shards and merge them; on a cluster the folder is one that all machines see."""
    with tempfile.TemporaryDirectory() as place:
        shards = [f"{i}/{SHARDS}" for i in range(1, SHARDS + 1)]
        folders = [Path(place) / f"part-{i}" for i in range(1, SHARDS + 1)]
        try:
            import submitit
        except ImportError:
            counts = list(map(work_on, shards, folders))
        else:
            # One processor each, and no more than 50 at a time; times are in minutes, memory in GB.
            executor = submitit.AutoExecutor(folder=Path(place) / "logs")
            executor.update_parameters(timeout_min=240, cpus_per_task=1, mem_gb=4, slurm_array_parallelism=50)
            counts = [job.result() for job in executor.map_array(work_on, shards, folders)]
        merged = merge(folders, Path(place) / "whole")
        checked = check(merged.run, allow_uncertified=True)
        print(f"{sum(counts)} of {merged.inputs} inputs certified at {EPSILON}, {len(checked.refused)} claims refused")


if __name__ == "__main__":
    main()
