"""What a process of a job sees of the others, as one line of JSON from process 0: run by test_mpirun through mpirun."""

import json
import sys
from functools import partial

import numpy as np

from minifcn.distributed import world
from minifcn.errors import InputError
from minifcn.training.exchange import half_sum

job = world()
found = {"size": job.size, "local": job.local_size}
found["sum"] = job.sum(np.full((2, 3), job.rank + 1.0)[:, ::2]).tolist()  # not contiguous
found["number"] = job.sum(np.array(0.5)).tolist()
found["sums"] = []
for local_size in (job.size, 1):  # as on one host, and as on several, where a helper's thread sends
    job.local_size = local_size
    begun = [job.start_sum(np.full(n, job.rank + n, np.float32)) for n in (1, 1000, 300_000)]
    found["sums"].append([float(np.unique(arrived()).item()) for arrived in begun])
values = np.random.default_rng(job.rank).normal(size=1001).astype(np.float32)
half = job.start(partial(half_sum, values))()
found["half"] = float(abs(half - job.sum(values.copy())).max())
found["equal"] = len({one.tobytes() for one in job.everyone(half)})
joined, first = job.join(np.full((job.rank + 1, 2), job.rank))
found["joined"], found["first"] = joined[:, 0].tolist(), job.everyone(first)
found["any"] = [job.any(job.rank == 1), job.any(False)]
found["shared"], found["everyone"] = job.share(f"of {job.rank}"), job.everyone(job.rank)
job.agree("the same", b"bytes")
try:
    job.agree("version", f"1.{job.rank // 2}")
except InputError as error:
    found["differs"] = str(error)
if job.rank == 0:
    print(json.dumps(found))
sys.stdout.flush()
