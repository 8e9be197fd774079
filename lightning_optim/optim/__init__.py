"""The adaptive family: its base, and a class for each algorithm.

Example:
    >>> from torch import nn
    >>> optimizer = optim.Lion(nn.Linear(3, 2).parameters(), lr=1e-4, weight_decay=0.1, cautious_decay=True)
    >>> optimizer.param_groups[0]["weight_decay_mode"]
    'decoupled'
"""

from .base import AdaptiveOptimizer as AdaptiveOptimizer
from .decay import WeightDecay as WeightDecay
from .members.adabelief import AdaBelief as AdaBelief
from .members.adabound import AdaBound as AdaBound
from .members.adabound import AdaBoundW as AdaBoundW
from .members.adabound import AMSBound as AMSBound
from .members.adadelta import Adadelta as Adadelta
from .members.adagrad import Adagrad as Adagrad
from .members.adam import Adam as Adam
from .members.adam import AdamW as AdamW
from .members.adam import AMSGrad as AMSGrad
from .members.adamax import Adamax as Adamax
from .members.lamb import LAMB as LAMB
from .members.lion import Lion as Lion
from .members.nadam import NAdam as NAdam
from .members.nadam import NAdamW as NAdamW
from .members.radam import RAdam as RAdam
from .members.rmsprop import RMSprop as RMSprop
from .update import Update as Update
