"""A mean function with its own uncertainty, from 20 tasks, is better than every published prior, and knows of no waves.

MetaL-Benchmark as in `metal_benchmark`: joint log density of the 100 test points / 100, RMSE, calibration error, each
per task and then averaged over 100 test tasks. Each learner is fitted once by `fit_evidence`, which has no randomness
(but for the network's first weights); nothing is chosen by test tasks. Beside two levels stand a Gaussian process of
one level, and one whose mean is a network, under a Gaussian hyperprior on its weights (PACOH-MAP with a kernel on x).
"""

import time
import warnings

import torch

import bayesmeta as bm
from bayesmeta.kernels import ConstantKernel, LinearKernel, RBFKernel, SumKernel
from benchmarks._report import verdict
from benchmarks.metal_benchmark import CONTEXT, PUBLISHED, scores


def one_level(num_inputs: int) -> bm.Learner:
    """A constant mean, and an RBF kernel on x."""
    return bm.Standardized(bm.DeepKernelTransfer(bm.networks.Inputs(num_inputs))).double()


def network_mean(num_inputs: int) -> bm.Learner:
    """A network as mean, N(0, 1) on its weights, and an RBF kernel on x."""
    learner = bm.DeepKernelTransfer(bm.networks.Inputs(num_inputs), mean=bm.MLP(num_inputs, [32, 32]))
    hyperprior = bm.hyperpriors.GaussianHyperprior(1.0, names="mean")
    return bm.wrappers.WithHyperprior(bm.Standardized(learner), hyperprior).double()


def two_levels(num_inputs: int) -> bm.Learner:
    """An RBF kernel for what tasks share; a level, a line and an RBF kernel for what is their own."""
    own = SumKernel([ConstantKernel(0.1), LinearKernel(0.1), RBFKernel(1.0, 0.1)])
    return bm.Standardized(bm.HierarchicalProcess(bm.networks.Inputs(num_inputs), own_kernel=own)).double()


LEARNERS = {"one level": one_level, "network as mean, MAP": network_mean, "two levels": two_levels}


def main() -> None:
    """Print the rows."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", bm.ConvergenceWarning)  # networks are searched for 500 steps, however flat it gets
    below = []
    for name, contexts in CONTEXT.items():
        for context in contexts:
            train, test = bm.tasks.metal_benchmark(name, context=context)
            assert test.oracle is not None
            best = max(PUBLISHED[name].items(), key=lambda row: row[1][0])
            print(f"\n{name}, {context} context points")
            print(f"{'':<34}{'log density':>12}{'RMSE':>8}{'calib.':>8}{'seconds':>9}")
            print(f"{'published: ' + best[0]:<34}{best[1][0]:>12.3f}{best[1][1]:>8.3f}{best[1][2]:>8.3f}")
            for label, make in LEARNERS.items():
                torch.manual_seed(0)
                learner = make(train.data.x.shape[-1])
                start = time.perf_counter()
                bm.fit_evidence(learner, train)
                spent = time.perf_counter() - start
                found = scores(learner, test, context)
                print(f"{label:<34}{found[0]:>12.3f}{found[1]:>8.3f}{found[2]:>8.3f}{spent:>9.1f}", flush=True)
            if found[0] <= best[1][0]:
                below.append(f"{name} ({context})")
            density, rmse, calibration = scores(test.oracle, test, context)
            print(f"{'Bayes-optimal oracle':<34}{density:>12.3f}{rmse:>8.3f}{calibration:>8.3f}")
    where = f"everywhere but on {', '.join(below)}" if below else "everywhere"
    verdict(f"the log density of two levels is above the best published row {where}", seed=0)


if __name__ == "__main__":
    main()
