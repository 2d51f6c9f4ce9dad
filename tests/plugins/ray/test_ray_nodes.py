"""A cluster of several nodes on the loopback, one of which dies with the rows and states it has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logs
import pytest
from jobs.engines.same import assert_same
from kill import case
from plugins.ray import cluster

from streamrnn import Pipeline
from streamrnn.outputs import verify

ray = pytest.importorskip("ray", reason="needs the engines extra")


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head without workers, and two nodes with one worker each."""
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    options = {"node_ip_address": "127.0.0.1", "object_store_memory": 200_000_000}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment().items():
            patch.setenv(name, value)
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": {"health_check_period_ms": 500, "health_check_timeout_ms": 2000},
                **options,
            },
        )
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **options)
            ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
            yield made
        finally:
            processes = cluster.tree(os.getpid())
            ray.shutdown()
            made.shutdown()
            cluster.end(processes)


def test_a_node_is_lost(nodes: Any, tmp_path: Path) -> None:
    log = logs.random_log(20_000, streams=700, seed=5, nulls=0.1, jitter=5)
    logs.write(log, tmp_path / "in/0.parquet", row_group=500)
    logs.small_model("LSTM", units=16).save(tmp_path / "model.safetensors")
    data = case.config(tmp_path, tmp_path / "single", max_rejects=20_000)
    Pipeline.from_dict(data).run()
    workers = [node for node in nodes.list_all_nodes() if node is not nodes.head_node]
    lost = []

    def lose(progress: Any) -> None:
        if progress.rows > 6000 and not lost:
            lost.append(workers[1])
            nodes.remove_node(workers[1], allow_graceful=False)

    data = case.config(tmp_path, tmp_path / "out", max_rejects=20_000)
    data["engine"] = {"type": "ray", "shards": 4, "epoch_rows": 2000}
    summary = Pipeline.from_dict(data).run(progress=lose)
    assert lost
    assert summary.commits == 10
    assert_same(tmp_path / "single", tmp_path / "out")
    verify(str(tmp_path / "out"))
