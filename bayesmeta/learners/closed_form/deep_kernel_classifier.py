"""Deep kernels for classification: a Gaussian process on labels as numbers.

Patacchiola, Turner, Crowley, O'Boyle, Storkey 2020 (arXiv:1910.05199), sec. 4.2:

    y_nc = ±1 = f_c(x_n) + ε_nc,   f_c ~ GP(0, k(h(x), h(x'))),   ε_nc ~ N(0, σ²)
    p(c | x, D)   the calibrated softmax of the mean and variance of f_c(x) | D

    phi         f, a function for each class
    prior       Gaussian process: any kernel of gpytorch on the features h
    likelihood  Gaussian, of labels of ±1: a pseudo-likelihood
    inference   exact, in float64 whatever the precision of the features
"""

from typing_extensions import override

from bayesmeta.heads.classifier import HeadClassifier
from bayesmeta.heads.gaussian_process import GaussianProcessHead


class DeepKernelClassifier(HeadClassifier):
    """Classification by Gaussian process regression on labels of ±1, one class against the rest.

    It is a `HeadClassifier` whose head is a `GaussianProcessHead`.

    The paper's choice (sec. 4.2): the labels of each class are regressed on as numbers, with a Gaussian process of one
    kernel for all. Its mean and variance then go through the calibrated softmax of all classifiers here, whose two
    numbers are learned by the predictive density of the query labels, as is all of theta. The paper has a sigmoid of
    the mean, and learns by the evidence of the ±1.

    theta is the weights of the features, the parameters of the kernel and the noise variance of the labels
    (`head.kernel`, `head.noise`), `scale` and `spread`.

    Example:
        >>> import bayesmeta as bm
        >>> head = bm.heads.GaussianProcessHead(8, kernel=bm.kernels.RBFKernel())
        >>> learner = bm.DeepKernelClassifier(bm.MLP(2, [16, 8]), num_classes=3, head=head)
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 1, 2]))
        >>> posterior.predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    default_scale = 5.0

    @override
    @classmethod
    def default_head(cls, num_features: int) -> GaussianProcessHead:
        return GaussianProcessHead(num_features)
