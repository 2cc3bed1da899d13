"""`python -m profile_enrich`: the command `profile-enrich`."""

from profile_enrich_command import main

if __name__ == "__main__":
    main()
