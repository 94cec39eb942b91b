"""Messages to people, and events in Prefect: who hears of what, and how it reaches them.

recipients.py   who hears of what: names, kinds and styles, in the state folder; no address
addresses.py    an address as it is typed, and the block of Prefect that keeps it
sending.py      one message to one address, and words about a failure without the address
outbox.py       messages that still have to be sent; they outlive their run
tell.py         one function for every cause: an event, and a message for each recipient
decisions.py    decisions on versions, told once each
failures.py     hooks of the flows, and runs that were killed
silence.py      sources that gave images before and give none now
heartbeat.py    address of the heartbeat

A message that cannot be sent is a warning and never fails a run.
"""
