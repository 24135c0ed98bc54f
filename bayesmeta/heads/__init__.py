"""Last layers: those for classes that are solved within the network, and those that say what its outputs mean."""

from bayesmeta.heads.class_means import NearestMeanHead
from bayesmeta.heads.class_prior import ClassPrior
from bayesmeta.heads.classes import Classes
from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.clusters import ClusterHead
from bayesmeta.heads.context import BiLSTM, Context, SetAttention
from bayesmeta.heads.feature_classifier import FeatureClassifier, HeadPosterior
from bayesmeta.heads.gaussian_process import GaussianProcessHead
from bayesmeta.heads.graph import GraphHead
from bayesmeta.heads.head import Examples, Head, LogScores, OpenScores, Scores
from bayesmeta.heads.kernel_counts import KernelCountsHead
from bayesmeta.heads.logistic import LogisticHead
from bayesmeta.heads.one_hot import ClassSlots, OneHotHead
from bayesmeta.heads.output import (
    CategoricalHead,
    GaussianHead,
    LowRankGaussianHead,
    MixtureHead,
    OutputHead,
    PointwiseHead,
    Shown,
)
from bayesmeta.heads.pairs import PairHead
from bayesmeta.heads.relation import RelationHead
from bayesmeta.heads.ridge import RidgeHead
from bayesmeta.heads.svm import SVMHead

__all__ = [
    "BiLSTM",
    "CategoricalHead",
    "ClassPrior",
    "ClassSlots",
    "Classes",
    "ClusterHead",
    "Context",
    "Examples",
    "FeatureClassifier",
    "GaussianHead",
    "GaussianProcessHead",
    "GraphHead",
    "Head",
    "HeadClassifier",
    "HeadPosterior",
    "KernelCountsHead",
    "LogScores",
    "LogisticHead",
    "LowRankGaussianHead",
    "MixtureHead",
    "NearestMeanHead",
    "OneHotHead",
    "OpenScores",
    "OutputHead",
    "PairHead",
    "PointwiseHead",
    "RelationHead",
    "RidgeHead",
    "SVMHead",
    "Scores",
    "SetAttention",
    "Shown",
]
