"""Optimiser steps: the trained weights, the loss, the learning rate and the passes per step."""
