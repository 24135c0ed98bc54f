"""How near a latent neural process's q(z | D) is to the posterior of z under its own decoder: NUTS, and ranks.

A process with four latent numbers is meta-trained on MAML's sinusoids, by the joint density of its queries and by the
variational bound. What is judged is inference, not the model: the reference is NUTS on log p(y, z) of the learned
decoder, adapted to the same supports. `KL` is nats a query point from the reference's predictive to that of q; `mean`
is the error of the mean of z in deviations of the reference, root mean square, and `log width` the logarithm of the
ratio of deviations, below 0 too narrow. Ranks are those of 500 truths that the model itself drew, among 99 draws of q:
they are uniform where q is the posterior.
"""

import argparse

import torch

import bayesmeta as bm
from benchmarks._report import verdict
from benchmarks._training import fitted, keep_memory

SEED, TASKS, QUERY, SIZE = 0, 12, 20, 4
SHOTS = (1, 5, 10)
SAMPLER = bm.inference.NUTS(num_chains=8, num_draws=100, num_warmup=200)


def process() -> bm.LatentNeuralProcess:
    """Four latent numbers, all that is kept of a support."""
    return bm.LatentNeuralProcess(
        bm.Identity(1), aggregation=bm.learners.BayesianPool(SIZE), num_draws=8, width=64, layers=2
    )


def main() -> None:
    """Train, compare, rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds to train each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    sinusoids, worst = bm.tasks.Sinusoid.maml(noise=0.1), 0.0
    objectives = {"joint density": None, "variational bound": bm.training.VariationalBound()}
    for name, objective in objectives.items():
        learner, took = fitted(
            process,
            sinusoids,
            bm.tasks.EqualSplit((0, 15), QUERY),
            arguments.seconds,
            batch_size=32,
            lr=2e-3,
            seed=SEED,
            objective=objective,
        )
        assert isinstance(learner, bm.LatentNeuralProcess)
        model = bm.learners.LatentModel(learner).double()
        print(f"{name}: {took}\n  points        KL      mean  log width", flush=True)
        for shots in SHOTS:
            batch = sinusoids.draw(TASKS, bm.tasks.RandomSplit.at(shots, QUERY), torch.Generator().manual_seed(1))
            reference = bm.Sampled(model, SAMPLER, seed=SEED).adapt(batch.support)
            found = bm.checks.fidelity(model.adapt(batch.support), reference, batch.query.x)
            row = found.table().mean()
            worst = max(worst, row.predictive_kl)
            print(f"  {shots:>6}{row.predictive_kl:>10.4f}{row.mean_error:>10.3f}{row.log_scale:>11.3f}", flush=True)
        generator = torch.Generator().manual_seed(2)
        x = 10.0 * torch.rand(500, 5, 1, generator=generator, dtype=torch.float64) - 5.0
        print(bm.checks.sbc(model, x, seed=SEED).table().round(3).to_string(), flush=True)
    verdict(f"the predictive of q is at most {worst:.3f} nats a point from that of NUTS on its own model", SEED)


if __name__ == "__main__":
    main()
