"""Writes the page "Citing": `python -m docs.tools.the_papers`. A paper is a line of `PAPERS`."""
# ruff: noqa: E501  (a paper is a line)

import re
from dataclasses import dataclass
from pathlib import Path

from docs.tools.the_field import ROWS

DOCS = Path(__file__).parent.parent
PAGE = DOCS / "project" / "citing.md"


@dataclass(frozen=True)
class Paper:
    """A paper that a method of the library comes from.

    Attributes:
        key: of its entry in BibTeX.
        authors: surnames and initials, separated by " and ", as BibTeX wants them.
        title: as it is printed.
        year: of the version that is named.
        venue: where it appeared.
        arxiv: its number there, if it has one.
        names: public names below `bayesmeta` that it is of, separated by blanks.
    """

    key: str
    authors: str
    title: str
    year: int
    venue: str
    arxiv: str
    names: str

    @property
    def line(self) -> str:
        """The paper as an entry of a list."""
        people = [name.split(",")[0] for name in self.authors.split(" and ")]
        who = " and ".join(people) if len(people) < 3 else f"{', '.join(people[:-1])} and {people[-1]}"
        link = f" [arXiv:{self.arxiv}](https://arxiv.org/abs/{self.arxiv})." if self.arxiv else ""
        return f"{who} ({self.year}). *{self.title}*. {self.venue}.{link}"

    @property
    def bibtex(self) -> str:
        """The paper as BibTeX."""
        fields = {"author": self.authors, "title": f"{{{self.title}}}", "year": str(self.year), "booktitle": self.venue}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        return f"@inproceedings{{{self.key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


PAPERS = [
    Paper("harrison2018alpaca", "Harrison, J. and Sharma, A. and Pavone, M.", "Meta-learning priors for efficient online Bayesian regression", 2018, "WAFR", "1807.08912", "ALPaCA MixtureALPaCA"),
    Paper("laird1982random", "Laird, N. M. and Ware, J. H.", "Random-effects models for longitudinal data", 1982, "Biometrics 38", "", "learners.MixedEffects learners.GeneralizedLinearMixedModel"),
    Paper("bates2015lme4", "Bates, D. and Mächler, M. and Bolker, B. and Walker, S.", "Fitting linear mixed-effects models using lme4", 2015, "Journal of Statistical Software 67", "1406.5823", "learners.MixedEffects"),
    Paper("lindstrom1990nonlinear", "Lindstrom, M. J. and Bates, D. M.", "Nonlinear mixed effects models for repeated measures data", 1990, "Biometrics 46", "", "Parametric"),
    Paper("bertinetto2019r2d2", "Bertinetto, L. and Henriques, J. F. and Torr, P. H. S. and Vedaldi, A.", "Meta-learning with differentiable closed-form solvers", 2019, "ICLR", "1805.08136", "R2D2 R2D2Regressor LRD2"),
    Paper("lee2019metaoptnet", "Lee, K. and Maji, S. and Ravichandran, A. and Soatto, S.", "Meta-learning with differentiable convex optimization", 2019, "CVPR", "1904.03758", "MetaOptNet"),
    Paper("patacchiola2020dkt", "Patacchiola, M. and Turner, J. and Crowley, E. J. and O'Boyle, M. and Storkey, A.", "Bayesian meta-learning for the few-shot setting via deep kernels", 2020, "NeurIPS", "1910.05199", "DeepKernelTransfer DeepKernelClassifier"),
    Paper("rothfuss2021pacoh", "Rothfuss, J. and Fortuin, V. and Josifoski, M. and Krause, A.", "PACOH: Bayes-optimal meta-learning with PAC-guarantees", 2021, "ICML", "2002.05551", "HyperPosterior wrappers.WithHyperprior HierarchicalProcess"),
    Paper("finn2017maml", "Finn, C. and Abbeel, P. and Levine, S.", "Model-agnostic meta-learning for fast adaptation of deep networks", 2017, "ICML", "1703.03400", "MAML FirstOrderMAML"),
    Paper("li2017metasgd", "Li, Z. and Zhou, F. and Chen, F. and Li, H.", "Meta-SGD: learning to learn quickly for few-shot learning", 2017, "arXiv", "1707.09835", "MetaSGD"),
    Paper("antoniou2019mamlpp", "Antoniou, A. and Edwards, H. and Storkey, A.", "How to train your MAML", 2019, "ICLR", "1810.09502", "MAMLPlusPlus"),
    Paper("behl2019alpha", "Behl, H. S. and Baydin, A. G. and Torr, P. H. S.", "Alpha MAML: adaptive model-agnostic meta-learning", 2019, "ICML workshop on AutoML", "1905.07435", "AlphaMAML"),
    Paper("rajeswaran2019imaml", "Rajeswaran, A. and Finn, C. and Kakade, S. and Levine, S.", "Meta-learning with implicit gradients", 2019, "NeurIPS", "1909.04630", "IMAML"),
    Paper("grant2018llama", "Grant, E. and Finn, C. and Levine, S. and Darrell, T. and Griffiths, T.", "Recasting gradient-based meta-learning as hierarchical Bayes", 2018, "ICLR", "1801.08930", "LLAMA MAML"),
    Paper("zintgraf2019cavia", "Zintgraf, L. and Shiarlis, K. and Kurin, V. and Hofmann, K. and Whiteson, S.", "Fast context adaptation via meta-learning", 2019, "ICML", "1810.03642", "CAVIA"),
    Paper("yoon2018bmaml", "Yoon, J. and Kim, T. and Dia, O. and Kim, S. and Bengio, Y. and Ahn, S.", "Bayesian model-agnostic meta-learning", 2018, "NeurIPS", "1806.03836", "BMAML"),
    Paper("chen2019closer", "Chen, W.-Y. and Liu, Y.-C. and Kira, Z. and Wang, Y.-C. F. and Huang, J.-B.", "A closer look at few-shot classification", 2019, "ICLR", "1904.04232", "FineTuned"),
    Paper("snell2017prototypical", "Snell, J. and Swersky, K. and Zemel, R.", "Prototypical networks for few-shot learning", 2017, "NeurIPS", "1703.05175", "Prototypical"),
    Paper("vinyals2016matching", "Vinyals, O. and Blundell, C. and Lillicrap, T. and Kavukcuoglu, K. and Wierstra, D.", "Matching networks for one shot learning", 2016, "NeurIPS", "1606.04080", "Matching"),
    Paper("koch2015siamese", "Koch, G. and Zemel, R. and Salakhutdinov, R.", "Siamese neural networks for one-shot image recognition", 2015, "ICML deep learning workshop", "", "Siamese"),
    Paper("sung2018relation", "Sung, F. and Yang, Y. and Zhang, L. and Xiang, T. and Torr, P. H. S. and Hospedales, T. M.", "Learning to compare: relation network for few-shot learning", 2018, "CVPR", "1711.06025", "Relation"),
    Paper("allen2019imp", "Allen, K. R. and Shelhamer, E. and Shin, H. and Tenenbaum, J. B.", "Infinite mixture prototypes for few-shot learning", 2019, "ICML", "1902.04552", "InfiniteMixturePrototypes"),
    Paper("garcia2018graph", "Garcia, V. and Bruna, J.", "Few-shot learning with graph neural networks", 2018, "ICLR", "1711.04043", "GraphNetwork"),
    Paper("garnelo2018cnp", "Garnelo, M. and Rosenbaum, D. and Maddison, C. J. and Ramalho, T. and Saxton, D. and Shanahan, M. and Teh, Y. W. and Rezende, D. J. and Eslami, S. M. A.", "Conditional neural processes", 2018, "ICML", "1807.01613", "ConditionalNeuralProcess"),
    Paper("garnelo2018np", "Garnelo, M. and Schwarz, J. and Rosenbaum, D. and Viola, F. and Rezende, D. J. and Eslami, S. M. A. and Teh, Y. W.", "Neural processes", 2018, "ICML workshop", "1807.01622", "LatentNeuralProcess"),
    Paper("kim2019anp", "Kim, H. and Mnih, A. and Schwarz, J. and Garnelo, M. and Eslami, A. and Rosenbaum, D. and Vinyals, O. and Teh, Y. W.", "Attentive neural processes", 2019, "ICLR", "1901.05761", "ConditionalNeuralProcess LatentNeuralProcess"),
    Paper("gordon2020convcnp", "Gordon, J. and Bruinsma, W. P. and Foong, A. Y. K. and Requeima, J. and Dubois, Y. and Turner, R. E.", "Convolutional conditional neural processes", 2020, "ICLR", "1910.13556", "ConvCNP"),
    Paper("nguyen2022tnp", "Nguyen, T. and Grover, A.", "Transformer neural processes: uncertainty-aware meta learning via sequence modeling", 2022, "ICML", "2207.04179", "TransformerNeuralProcess"),
    Paper("bruinsma2023arcnp", "Bruinsma, W. P. and Markou, S. and Requeima, J. and Foong, A. Y. K. and Andersson, T. R. and Vaughan, A. and Buonomo, A. and Hosking, J. S. and Turner, R. E.", "Autoregressive conditional neural processes", 2023, "ICLR", "2303.14468", "wrappers.Autoregressive"),
    Paper("mishra2018snail", "Mishra, N. and Rohaninejad, M. and Chen, X. and Abbeel, P.", "A simple neural attentive meta-learner", 2018, "ICLR", "1707.03141", "SNAIL"),
    Paper("santoro2016mann", "Santoro, A. and Bartunov, S. and Botvinick, M. and Wierstra, D. and Lillicrap, T.", "Meta-learning with memory-augmented neural networks", 2016, "ICML", "1605.06065", "MANN"),
    Paper("munkhdalai2017meta", "Munkhdalai, T. and Yu, H.", "Meta networks", 2017, "ICML", "1703.00837", "MetaNetworks"),
    Paper("zhou2018concept", "Zhou, F. and Wu, B. and Li, Z.", "Deep meta-learning: learning to learn in the concept space", 2018, "arXiv", "1802.03596", "wrappers.ConceptLearner"),
    Paper("kim2018autometa", "Kim, J. and Lee, S. and Kim, S. and Cha, M. and Lee, J. K. and Choi, Y. and Choi, Y. and Cho, D.-Y. and Kim, J.", "Auto-Meta: automated gradient based meta learner search", 2018, "NeurIPS workshop on meta-learning", "1806.06927", "training.ArchitectureSearch"),
    Paper("hoffman2014nuts", "Hoffman, M. D. and Gelman, A.", "The No-U-Turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo", 2014, "JMLR 15", "1111.4246", "Sampled"),
    Paper("yao2018stacking", "Yao, Y. and Vehtari, A. and Simpson, D. and Gelman, A.", "Using stacking to average Bayesian predictive distributions", 2018, "Bayesian Analysis 13", "1704.02030", "wrappers.Stacked"),
    Paper("kuleshov2018calibrated", "Kuleshov, V. and Fenner, N. and Ermon, S.", "Accurate uncertainties for deep learning using calibrated regression", 2018, "ICML", "1807.00263", "wrappers.IsotonicRecalibrated"),
    Paper("guo2017calibration", "Guo, C. and Pleiss, G. and Sun, Y. and Weinberger, K. Q.", "On calibration of modern neural networks", 2017, "ICML", "1706.04599", "wrappers.TemperatureScaled"),
]  # fmt: skip

OURS = {
    "wrappers.TaskQuadrature": "quadrature over a few numbers of each task, as generalised linear mixed models use it",
    "wrappers.VarianceScaled": "one factor on all variances, chosen on tasks that are kept out",
    "wrappers.LogTransformed": "the change of variables",
    "wrappers.Separately": "a learner for each outcome",
    "Standardized": "units are taken away before, and given back after",
}
"""Methods of the field page that come from no one paper, and what they are."""

HEAD = """# Citing

If bayesmeta was part of your work, please cite the library **and the paper of the method that you used**: the library stands on
them. The version that you used is what `bayesmeta --version` prints.

```bibtex
@software{bayesmeta,
  author = {{The bayesmeta authors}},
  title = {bayesmeta: few-shot learning with uncertainty that can be trusted},
  version = {0.1.0}
}
```

## The papers of the methods

"""


def missing() -> set[str]:
    """Methods of the field page that have neither a paper nor a line of their own."""
    known = {name for paper in PAPERS for name in paper.names.split()} | set(OURS)
    return {name for row in ROWS for name in row.names.split()} - known


def citing() -> str:
    """The page."""
    pages = {name: row.page for row in ROWS for name in row.names.split()}
    lines = []
    for paper in sorted(PAPERS, key=lambda paper: (paper.authors, paper.year)):
        of = ", ".join(f"[{name.rpartition('.')[2]}](../{pages[name]})" for name in paper.names.split())
        lines.append(f"- {paper.line} For {of}.\n")
    own = "".join(f"- [{name.rpartition('.')[2]}](../{pages[name]}): {what}.\n" for name, what in OURS.items())
    entries = "\n\n".join(paper.bibtex for paper in sorted(PAPERS, key=lambda paper: paper.key))
    folded = re.sub(r"^(?=.)", "    ", f"```bibtex\n{entries}\n```\n", flags=re.M)
    return f'{HEAD}{"".join(lines)}\nOf no one paper:\n\n{own}\n??? note "All of them as BibTeX"\n\n{folded}'


if __name__ == "__main__":
    PAGE.write_text(citing())
