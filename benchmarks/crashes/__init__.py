"""Table of crashes: every stage of a run by every fault, with the outcome and the seconds of work lost.

    python -m benchmarks.crashes [--faults killed,stopped] [--stages duel,publish] [--away 300]
        [--postgres URL] [--record benchmarks/crashes/record.json] [--page docs/crashes.md]

Each fault is a chain on a state folder of its own, with a tiny base. A fault that ends a run strikes at the first
stage. The same command then continues and is struck at the next stage, and so on, until a run completes. A fault that
a run survives strikes at every stage of one run. The moment within a stage is drawn with a seed. At the end the adapter
has to be equal to the byte to that of an undisturbed run, with one version and one entry in the history.

The work lost is the time in all stages over all runs of the chain, less that of an undisturbed run, less the time for
which a server was away or the process was stopped. It includes what a started run does again, such as reading models.

`marks` says when stages begin, `setting` and `servers` make what a chain runs on, `faults` has the faults, `chain` and
`stack` put them on runs of a terminal and of `sdlora up`, `table` measures rows, and `page` writes them.
"""
