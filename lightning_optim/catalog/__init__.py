"""The catalog of optimizers: what each one computes and accepts, as data; torch is imported only for a class."""
