"""The program that whimbrel brings to a host: standard library only, Python 3.9 or newer.

Each module here is sent as text and run there (sites/program.py). None imports whimbrel or
another module of this folder; each lists what it answers in `QUESTIONS`, by name. Whatever a
function raises reaches the asker as `CommandRefused` with the exception's words.

    serve      the loop: one question per line in, one answer per line out
    host       what the host is and has; its network interfaces
    load       how busy it is, and what moving memory costs on it
    memory     a look into a process's memory
    links      what TCP gets between two hosts
"""
