"""Last layers for classes that are solved within the network: one plug-in point for all families."""

from bayesmeta.heads.class_means import NearestMeanHead
from bayesmeta.heads.class_prior import ClassPrior
from bayesmeta.heads.classes import Classes
from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.clusters import ClusterHead
from bayesmeta.heads.feature_classifier import FeatureClassifier, HeadPosterior
from bayesmeta.heads.gaussian_process import GaussianProcessHead
from bayesmeta.heads.graph import GraphHead
from bayesmeta.heads.head import Examples, Head, LogScores, OpenScores, Scores
from bayesmeta.heads.logistic import LogisticHead
from bayesmeta.heads.ridge import RidgeHead
from bayesmeta.heads.svm import SVMHead

__all__ = [
    "ClassPrior",
    "Classes",
    "ClusterHead",
    "Examples",
    "FeatureClassifier",
    "GaussianProcessHead",
    "GraphHead",
    "Head",
    "HeadClassifier",
    "HeadPosterior",
    "LogScores",
    "LogisticHead",
    "NearestMeanHead",
    "OpenScores",
    "RidgeHead",
    "SVMHead",
    "Scores",
]
