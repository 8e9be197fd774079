from itertools import pairwise

from torch import nn


class SimpleDenseNet(nn.Module):
    def __init__(self, input_size, lin1_size, lin2_size, lin3_size, output_size):
        super().__init__()
        sizes = [input_size, lin1_size, lin2_size, lin3_size]
        hidden = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())]
        self.model = nn.Sequential(*hidden, nn.Linear(lin3_size, output_size))

    def forward(self, x):
        return self.model(x.flatten(1))
