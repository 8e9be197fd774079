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
from .members.adai import Adai as Adai
from .members.adam import Adam as Adam
from .members.adam import AdamW as AdamW
from .members.adam import AMSGrad as AMSGrad
from .members.adam_mini import AdamMini as AdamMini
from .members.adamax import Adamax as Adamax
from .members.adamod import AdaMod as AdaMod
from .members.adamp import AdamP as AdamP
from .members.adan import Adan as Adan
from .members.ademamix import AdEMAMix as AdEMAMix
from .members.adopt import ADOPT as ADOPT
from .members.diffgrad import DiffGrad as DiffGrad
from .members.ef_sgd import EFSGD as EFSGD
from .members.extra import ExtraAdam as ExtraAdam
from .members.extra import ExtraSGD as ExtraSGD
from .members.lamb import LAMB as LAMB
from .members.laprop import LaProp as LaProp
from .members.lars import LARS as LARS
from .members.lion import Lion as Lion
from .members.madgrad import MADGRAD as MADGRAD
from .members.mars import MARS as MARS
from .members.nadam import NAdam as NAdam
from .members.nadam import NAdamW as NAdamW
from .members.novograd import NovoGrad as NovoGrad
from .members.omd import OMD as OMD
from .members.optimistic_adam import OptimisticAdam as OptimisticAdam
from .members.padam import Padam as Padam
from .members.prodigy import Prodigy as Prodigy
from .members.qhadam import QHAdam as QHAdam
from .members.radam import RAdam as RAdam
from .members.rmsprop import RMSprop as RMSprop
from .members.signum import Signum as Signum
from .members.sophia_g import SophiaG as SophiaG
from .members.stable_adamw import StableAdamW as StableAdamW
from .members.storm import STORM as STORM
from .members.yogi import Yogi as Yogi
from .update import Update as Update
