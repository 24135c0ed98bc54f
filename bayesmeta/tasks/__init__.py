"""Where tasks come from: tables, images, simulators with their oracles; and how their points are divided."""

from bayesmeta.outcomes import Counts, Positives
from bayesmeta.tasks.bandits.bandit import Bandits
from bayesmeta.tasks.bandits.bernoulli import BernoulliBandits
from bayesmeta.tasks.bandits.gittins import Gittins
from bayesmeta.tasks.bandits.linear import GaussianBandits, LinearBandits
from bayesmeta.tasks.bandits.play import Play, play
from bayesmeta.tasks.bandits.policy import Policy, RandomArms
from bayesmeta.tasks.bandits.thompson import Thompson, drawn_rewards
from bayesmeta.tasks.base_points import BasePoints
from bayesmeta.tasks.images.augment import Affine, Augmentation, Composed, StrokeWidth
from bayesmeta.tasks.images.corruptions import Erased, PixelNoise
from bayesmeta.tasks.images.episodes import Episodes
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.omniglot import download_omniglot, omniglot, omniglot_runs
from bayesmeta.tasks.images.one_shot_runs import OneShotRuns
from bayesmeta.tasks.images.super_classes import SuperClassEpisodes
from bayesmeta.tasks.known_points import KnownPoints
from bayesmeta.tasks.oracles.oracle import Oracle
from bayesmeta.tasks.parquet_tasks import ParquetTasks
from bayesmeta.tasks.seedlings import example_table
from bayesmeta.tasks.self_supervised import AugmentedTasks, ClusteredTasks, UnlabelledTasks
from bayesmeta.tasks.simulators.cauchy import Cauchy
from bayesmeta.tasks.simulators.gaussian_blobs import GaussianBlobs
from bayesmeta.tasks.simulators.gp_functions import (
    ExponentiatedQuadratic,
    GPFunctions,
    Matern52,
    StationaryKernel,
    WeaklyPeriodic,
)
from bayesmeta.tasks.simulators.metal_benchmark import metal_benchmark
from bayesmeta.tasks.simulators.pendulum import Pendulum
from bayesmeta.tasks.simulators.sawtooth import Sawtooth
from bayesmeta.tasks.simulators.simulator import FunctionSimulator, Simulator
from bayesmeta.tasks.simulators.sinusoid import Sinusoid
from bayesmeta.tasks.simulators.sloped_sinusoid import SlopedSinusoid
from bayesmeta.tasks.simulators.step import Step
from bayesmeta.tasks.simulators.task_mixture import TaskMixture
from bayesmeta.tasks.source import ClassSplit, EqualSplit, OrderedSplit, PrefixSplit, RandomSplit, Split, TaskSource
from bayesmeta.tasks.table import Schema

__all__ = [
    "Affine",
    "Augmentation",
    "AugmentedTasks",
    "Bandits",
    "BasePoints",
    "BernoulliBandits",
    "Cauchy",
    "ClassSplit",
    "ClusteredTasks",
    "Composed",
    "Counts",
    "Episodes",
    "EqualSplit",
    "Erased",
    "ExponentiatedQuadratic",
    "FunctionSimulator",
    "GPFunctions",
    "GaussianBandits",
    "GaussianBlobs",
    "Gittins",
    "ImageClasses",
    "KnownPoints",
    "LinearBandits",
    "Matern52",
    "OneShotRuns",
    "Oracle",
    "OrderedSplit",
    "ParquetTasks",
    "Pendulum",
    "PixelNoise",
    "Play",
    "Policy",
    "Positives",
    "PrefixSplit",
    "RandomArms",
    "RandomSplit",
    "Sawtooth",
    "Schema",
    "Simulator",
    "Sinusoid",
    "SlopedSinusoid",
    "Split",
    "StationaryKernel",
    "Step",
    "StrokeWidth",
    "SuperClassEpisodes",
    "TaskMixture",
    "TaskSource",
    "Thompson",
    "UnlabelledTasks",
    "WeaklyPeriodic",
    "download_omniglot",
    "drawn_rewards",
    "example_table",
    "metal_benchmark",
    "omniglot",
    "omniglot_runs",
    "play",
]
