"""Soak of a running `sdlora up`: rounds drawn from a seed, with faults, and invariants checked from outside.

plan.py        what each round does, drawn from the seed and the round's number only
world.py       three styles, their source folders, and a record of every file that was put there
machine.py     the disk, the clock and PostgreSQL, where faults can strike them
system.py      `sdlora up`, commands, flow runs, processes and their memory
asked.py       runs that were asked for
processes.py   how processes are recognised, and their memory
faults.py      kills, stops and cancellations at a moment of a run
records.py     databases of the state folder, read by SQL
invariants.py  what has to hold after each round
retained.py    what the rules of retention allow to be left after `sdlora gc`
loop.py        the rounds, one after the other
waiting.py     waiting with an end
outcomes.py    what each round did and measured
report.py      figures and failures in words

`benchmarks/soak.py` is the command. `tests/integration/test_soak.py` is its short form.
"""
