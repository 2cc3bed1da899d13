"""The commands: `profile-enrich serve`, `lookup`, `entities`, `indexes`, `export`, `enrich`, `doctor`.

Each command is a module. Options are also read from `PROFILE_ENRICH_*` variables. Use variables for secrets, because
other users of the machine can see command lines.

Exit codes: 0 done; 1 no such profile (`lookup`), or something is wrong (`doctor`); 2 the command, the configuration or
the credentials are wrong; 3 the source is unavailable; 128 + n ended by signal n (130 for Ctrl-C). `enrich` has codes
of its own: 0 done, 2 done with dead letters, 1 failed, 128 + n interrupted and resumable.
"""
